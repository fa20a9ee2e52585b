# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# For the scripts of this directory, which compile here what a virtual machine without a compiler runs: source it with ROOT set.
# After ./run lint or any other command of ./run that makes .venv.
export ANSIBLE_CONFIG="$ROOT/ansible.cfg" LC_ALL=C.UTF-8
PATH=$ROOT/.venv/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compiled NAME OBJECT: bpf/NAME.bpf.c as an object
compiled() {
	ansible localhost -m ebpf.sockredir.sockmap_object -a "src=$ROOT/bpf/$1.bpf.c dest=$2" >"$work/made"
}

# copied DIRECTORY PATH...: these parts of the checkout
copied() {
	to=$1
	shift
	mkdir -p "$to"
	(cd "$ROOT" && tar --exclude=__pycache__ -cf - "$@") | tar -C "$to" -xf -
}
