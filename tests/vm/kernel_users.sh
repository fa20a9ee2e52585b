#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# The kernel's own users of TCP beside redirection, in a virtual machine of each suite: NVMe over TCP to itself, and an
# iSCSI target asked by a program. They work as in a plain cgroup, and no socket of theirs comes into the map.
#
#   sudo sh tests/vm/kernel_users.sh [bookworm trixie sid]
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
# shellcheck source=tests/vm/compiled.sh
. "$ROOT/tests/vm/compiled.sh"

copied "$work/bpf" plugins/module_utils tests/conformance
compiled sockredir "$work/bpf/sockredir.bpf.o"
cp "$ROOT/tests/vm/kernel_users.py" "$work/bpf"

[ $# -gt 0 ] || set -- bookworm trixie sid
for suite; do
	echo "$suite"
	"$ROOT/molecule/shared/vm" run "$suite" --with kmod,libbpf1,libiscsi-bin --copy "$work/bpf:/root/users" -- "
		modprobe -a nvmet-tcp nvme-tcp target_core_mod iscsi_target_mod loop &&
		cd /root/users && python3 kernel_users.py sockredir.bpf.o"
done
