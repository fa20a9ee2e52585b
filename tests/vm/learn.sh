#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Learning on several kernels: compiled once, here, then the tests of tests/integration/learn in a virtual machine of each suite.
#
#   sudo sh tests/vm/learn.sh [bookworm trixie sid]
#
# After ./run lint or any other command of ./run that makes .venv. One machine at a time; it has no compiler.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
export ANSIBLE_CONFIG="$ROOT/ansible.cfg" LC_ALL=C.UTF-8
PATH=$ROOT/.venv/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/copy/plugins" "$work/copy/compiled"
for name in learn sockredir; do
	ansible localhost -m ebpf.sockredir.sockmap_object -a "src=$ROOT/bpf/$name.bpf.c dest=$work/copy/compiled/$name.bpf.o" >"$work/made"
done
cp -R "$ROOT/plugins/module_utils" "$work/copy/plugins/"
cp -R "$ROOT/tests" "$ROOT/bpf" "$ROOT/galaxy.yml" "$work/copy/"
find "$work/copy" -name __pycache__ -prune -exec rm -rf {} +

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
