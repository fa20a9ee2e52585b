#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# One object for all kernels: compiled once, here, then loaded and put to work on this machine and in a virtual machine of each suite.
#
#   sudo sh tests/vm/one_object.sh [bookworm trixie sid]
#
# One machine at a time; it has no compiler.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
# shellcheck source=tests/vm/compiled.sh
. "$ROOT/tests/vm/compiled.sh"

# What redirects in it, from the first message to a thousand connections; one family, and small, for emulated processors.
cases='connect.client_first stream'
run="python3 tests/conformance/run.py --object sockredir.bpf.o --one-family --scale 0.05 --patience 6 --verbose $cases"

copied "$work/bpf" plugins/module_utils tests/conformance
compiled sockredir "$work/bpf/sockredir.bpf.o"
checksum=$(sha256sum "$work/bpf/sockredir.bpf.o")
checksum=${checksum%% *}
echo "sha256 $checksum"

[ $# -gt 0 ] || set -- bookworm trixie sid
(cd "$work/bpf" && sh -c "$run") | tail -n 2
for suite; do
	"$ROOT/molecule/shared/vm" run "$suite" --with iperf3 --copy "$work/bpf:/root/one" -- "
		cd /root/one &&
		! command -v clang >/dev/null &&
		echo '$checksum  sockredir.bpf.o' | sha256sum --check --quiet &&
		$run" >"$work/$suite" || {
		cat "$work/$suite"
		exit 1
	}
	tail -n 2 "$work/$suite"
done
