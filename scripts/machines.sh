# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Virtual machines: what they need, why there can be none, and one molecule scenario.

# What sysexits.h calls a service that is unavailable: molecule/shared/vm says so of a package mirror.
UNAVAILABLE=69

need_machines() {
	need_packages qemu-system-x86 qemu-utils mmdebstrap e2fsprogs fakeroot genisoimage openssh-client uidmap
}

# What keeps machines from being built and booted here; nothing if they can be.
no_machines() {
	if ! said=$( (need_machines) 2>&1); then
		say "qemu and mmdebstrap cannot be installed ($(say "$said" | tail -n 1))"
		return
	fi
	status=0
	said=$("$ROOT/molecule/shared/vm" mirror bookworm 2>&1) || status=$?
	# Whatever else is wrong is for the machines themselves to fail at.
	[ "$status" -ne "$UNAVAILABLE" ] || say "$said" | tail -n 1
}

# scenario NAME [OPTIONS]: molecule would name its directory after the checkout's last path component alone.
scenario() {
	name=$1
	shift
	cd "$ROOT" || return
	[ -f "molecule/$name/molecule.yml" ] || die "no scenario is named '$name': $(scenarios | tr '\n' ' ')"
	MOLECULE_EPHEMERAL_DIRECTORY=$ROOT/.cache/molecule/$name molecule test --scenario-name "$name" "$@"
}

scenarios() {
	for file in "$ROOT"/molecule/*/molecule.yml; do
		basename "$(dirname "$file")"
	done
}
