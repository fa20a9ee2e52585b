# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# The archive for Galaxy and Automation Hub.

# Where the project is public; empty until it is.
ADDRESS=

# make_archive ADDRESS DIRECTORY: from the files that belong to the checkout alone; says where the archive is.
make_archive() {
	address=$1
	into=$ROOT/$2
	source=$into/source
	rm -rf "$into"
	mkdir -p "$source"
	existing_files | tar -C "$ROOT" --null -T - -cf - | tar -C "$source" -xf -
	sed -i "s|^repository: .*|repository: $address\nhomepage: $address\ndocumentation: $address\nissues: $address/issues|" \
		"$source/galaxy.yml"
	ansible-galaxy collection build --force --output-path "$into" "$source" >/dev/null || return
	rm -rf "$source"
	ls "$into"/*.tar.gz
}

build() {
	[ -n "$ADDRESS" ] || die "nobody could find what is published: set ADDRESS in scripts/archive.sh to the project's public address"
	need_venv controller
	. "$ROOT/scripts/sanity.sh"
	make_archive "$ADDRESS" .cache/build
}
