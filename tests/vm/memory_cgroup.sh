#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Readers in memory cgroups that are nearly full, in a virtual machine of each suite: nobody is killed for what a writer redirects.
#
#   sudo sh tests/vm/memory_cgroup.sh [bookworm trixie sid]
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
# shellcheck source=tests/vm/compiled.sh
. "$ROOT/tests/vm/compiled.sh"

copied "$work/bpf" plugins/module_utils tests/conformance
compiled sockredir "$work/bpf/sockredir.bpf.o"
cp "$ROOT/tests/vm/memory_cgroup.py" "$work/bpf"

[ $# -gt 0 ] || set -- bookworm trixie sid
for suite; do
	echo "$suite"
	"$ROOT/molecule/shared/vm" run "$suite" --with kmod,libbpf1,libiscsi-bin --copy "$work/bpf:/root/memory" -- "
		cd /root/memory && python3 memory_cgroup.py sockredir.bpf.o"
done
