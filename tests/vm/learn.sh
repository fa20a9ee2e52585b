#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Learning on several kernels: compiled once, here, then the tests of tests/integration/learn in a virtual machine of each suite.
#
#   sudo sh tests/vm/learn.sh [bookworm trixie sid]
#
# One machine at a time; it has no compiler.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
# shellcheck source=tests/vm/compiled.sh
. "$ROOT/tests/vm/compiled.sh"

copied "$work/copy" bpf galaxy.yml plugins/module_utils tests
mkdir "$work/copy/compiled"
for name in learn sockredir; do
	compiled "$name" "$work/copy/compiled/$name.bpf.o"
done

[ $# -gt 0 ] || set -- bookworm trixie sid
for suite; do
	"$ROOT/molecule/shared/vm" run "$suite" --with python3-pytest,libbpf1 --copy "$work/copy:/root/copy" -- '
		cd /root/copy &&
		uname -r &&
		modprobe tls &&
		SOCKREDIR_COMPILED=/root/copy/compiled python3 -m pytest -q -rs -p no:cacheprovider tests/integration/learn/test_learn.py --deselect \
			tests/integration/learn/test_learn.py::test_sources_compile_and_errors_are_one_line' >"$work/$suite" || {
		cat "$work/$suite"
		exit 1
	}
	tail -n 8 "$work/$suite"
done
