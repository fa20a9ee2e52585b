# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run molecule [SCENARIO]: all scenarios, or one.

need_venv development
need_collection
need_packages qemu-system-x86 qemu-utils mmdebstrap e2fsprogs fakeroot genisoimage openssh-client uidmap
cd "$ROOT" || exit

# scenario NAME [OPTIONS]: molecule would name its directory after the checkout's last path component alone.
scenario() {
	name=$1
	shift
	[ -f "molecule/$name/molecule.yml" ] || die "no scenario is named '$name': $(scenarios | tr '\n' ' ')"
	MOLECULE_EPHEMERAL_DIRECTORY=$ROOT/.cache/molecule/$name molecule test --scenario-name "$name" "$@"
}

scenarios() {
	for file in molecule/*/molecule.yml; do
		basename "$(dirname "$file")"
	done
}

if [ $# -gt 0 ]; then
	scenario "$@"
	exit
fi
status=0
for name in $(scenarios); do
	scenario "$name" || {
		warn "molecule: $name failed"
		status=1
	}
done
exit $status
