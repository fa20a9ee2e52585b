#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# One object for all kernels: compiled once, here, then loaded and put to work on this machine and in a virtual machine of each suite.
#
#   sudo sh tests/vm/one_object.sh [bookworm trixie sid]
#
# After ./run lint or any other command of ./run that makes .venv. One machine at a time; it has no compiler.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
export ANSIBLE_CONFIG="$ROOT/ansible.cfg" LC_ALL=C.UTF-8
PATH=$ROOT/.venv/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What redirects in it, from the first message to a thousand connections; one family, and small, for emulated processors.
cases='connect.client_first stream'
run="python3 tests/conformance/run.py --object sockredir.bpf.o --one-family --scale 0.05 --patience 6 --verbose $cases"

mkdir -p "$work/bpf/plugins" "$work/bpf/tests"
ansible localhost -m ebpf.sockredir.sockmap_object -a "src=$ROOT/bpf/sockredir.bpf.c dest=$work/bpf/sockredir.bpf.o" >"$work/made"
cp -R "$ROOT/plugins/module_utils" "$work/bpf/plugins/"
cp -R "$ROOT/tests/conformance" "$work/bpf/tests/"
find "$work/bpf" -name __pycache__ -prune -exec rm -rf {} +
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
