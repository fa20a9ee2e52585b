# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# What every command of ./run stands on: privileges, packages, Python and the collection's path. Expects ROOT.

VENV=$ROOT/.venv
export ANSIBLE_CONFIG="$ROOT/ansible.cfg"
# Ansible wants a UTF-8 locale; a bare machine has only this one.
export LC_ALL=C.UTF-8

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
	warn "run: $*"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# As root, whoever calls.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif have sudo; then
		sudo -- "$@"
	else
		die "this needs root: run it as root, or install sudo (for: $*)"
	fi
}

# Installs those of the named Debian packages that are missing.
need_packages() {
	missing=
	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	have apt-get || die "install these packages with this distribution's tools and try again:$missing"
	say "Installing packages:$missing"
	# shellcheck disable=SC2086 # a list of names
	install_packages $missing
}

# need_servers PACKAGE...: the same for servers that are not to run as services of this machine.
need_servers() {
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ] || ! have apt-get; then
		need_packages "$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
	as_root chmod 755 "$policy"
	status=0
	(need_packages "$@") || status=$?
	as_root rm "$policy"
	return $status
}

install_packages() {
	log=$ROOT/.cache/packages.log
	mkdir -p "$ROOT/.cache"
	apt_get install "$@" >"$log" 2>&1 && return
	# Old or no package lists are the common cause.
	{ apt_get update && apt_get install "$@"; } >"$log" 2>&1 && return
	tail -n 20 "$log" >&2
	die "these packages could not be installed: $*"
}

apt_get() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@" </dev/null
}

# An interpreter that ansible-core 2.19 runs on. The distribution's own comes first: it sees the distribution's modules.
find_python() {
	for python in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
		if have "$python" && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v "$python"
			return
		fi
	done
	return 1
}

# need_venv controller|development|proxies|benchmark: the virtual environment holds what requirements/ pins.
need_venv() {
	stamp=$VENV/.$1
	wanted=$(cd "$ROOT" && { say "$ROOT" && cat requirements/controller.txt "requirements/$1.txt" requirements/constraints.txt; } | sha256sum)
	if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
		say "Setting up Python packages in .venv ($1): once, about a minute"
		# An environment works only if it was made.
		[ "$(cat "$VENV/.root" 2>/dev/null)" = "$ROOT" ] || make_venv
		pip_install "$VENV" -r "$ROOT/requirements/$1.txt" -c "$ROOT/requirements/constraints.txt"
		say "$wanted" >"$stamp"
	fi
	PATH=$VENV/bin:$PATH
	export PATH
}

make_venv() {
	find_python >/dev/null || need_packages python3 python3-venv
	python=$(find_python) || die "ansible-core needs Python 3.11 or newer with its venv module; none is installed here"
	"$python" -m venv --clear "$VENV"
	say "$ROOT" >"$VENV/.root"
}

# pip_install VENV ARGUMENTS...: quiet unless it fails.
pip_install() {
	log=$ROOT/.cache/pip.log
	mkdir -p "$ROOT/.cache"
	pip=$1/bin/pip
	shift
	"$pip" --disable-pip-version-check install "$@" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "pip could not install: $*"
	}
}

# Ansible finds a collection only below ansible_collections/NAMESPACE/NAME.
need_collection() {
	mkdir -p "$ROOT/.cache/ansible_collections/ebpf"
	ln -sfn ../../.. "$ROOT/.cache/ansible_collections/ebpf/sockredir"
}

need_controller() {
	need_venv controller
	need_collection
}

# playbook NAME [OPTIONS]: against this machine, or the inventory among the options.
playbook() {
	name=$1
	shift
	if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
		set -- --ask-become-pass "$@"
	fi
	ansible-playbook "$ROOT/playbooks/$name-sockredir.yml" "$@"
}

# Whether ansible-playbook's options mean this very machine, and not in pretence.
this_machine() {
	for option; do
		case $option in
		-i* | --inventory* | -C | --check | -l* | --limit* | --list-* | --syntax-check) return 1 ;;
		esac
	done
}
