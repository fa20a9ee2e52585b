# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test sanity. It works only in ansible_collections/NAMESPACE/NAME, not through a symbolic link, so it gets a copy.

SANITY=$ROOT/.cache/ansible-test
SANITY_COPY=$SANITY/ansible_collections/ebpf/sockredir

tracked_files() {
	if [ -e "$ROOT/.git" ] && have git; then
		git -c safe.directory="$ROOT" -C "$ROOT" ls-files -z --cached --others --exclude-standard --deduplicate
	else
		(cd "$ROOT" && find . \( -name .cache -o -name .venv -o -name .git -o -name .ansible -o -name __pycache__ \) -prune -o -type f -print0)
	fi
}

# Those that were not removed from the working tree.
existing_files() {
	# shellcheck disable=SC2016 # the inner shell expands it
	tracked_files | (cd "$ROOT" && xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh)
}

copy_collection() {
	rm -rf "$SANITY_COPY"
	mkdir -p "$SANITY_COPY"
	# A repository of its own, or else ansible-test would ask the one around it, which ignores .cache.
	! have git || git init -q "$SANITY_COPY"
	existing_files | tar -C "$ROOT" --null -T - -cf - | tar -C "$SANITY_COPY" -xf -
}

# ansible-test drops pip's environment and fetches a script to install pip 24.2. A home of its own gives it
# this machine's pip settings and a script that installs the same pip from the package index.
sanity_home() {
	home=$SANITY/home
	mkdir -p "$home/.config/pip" "$home/.ansible/test/cache"
	pip config list 2>/dev/null | sed -n \
		-e "s/^[a-z:.]*[.:]\(cert\|find-links\|index-url\|extra-index-url\|proxy\|trusted-host\)='\(.*\)'\$/\1 = \2/p" |
		sort -u -t= -k1,1 | sed '1i [global]' >"$home/.config/pip/pip.conf"
	proxy=${https_proxy:-${HTTPS_PROXY:-}}
	if [ -n "$proxy" ] && ! grep -q '^proxy' "$home/.config/pip/pip.conf"; then
		say "proxy = $proxy" >>"$home/.config/pip/pip.conf"
	fi
	wheel=$SANITY/pip-24.2-py3-none-any.whl
	[ -f "$wheel" ] || pip --disable-pip-version-check download -q --no-deps -d "$SANITY" pip==24.2 2>/dev/null ||
		die 'pip 24.2, which ansible-test wants, cannot be downloaded'
	cat >"$home/.ansible/test/cache/get_pip_24_2.py" <<PYTHON
import runpy, sys
sys.path.insert(0, "$wheel")
sys.argv = ["pip", "install", "-q", "--no-index", "--no-deps", "$wheel"]
runpy.run_module("pip", run_name="__main__")
PYTHON
	say "$home"
}

sanity() {
	copy_collection
	home=$(sanity_home)
	(cd "$SANITY_COPY" && HOME=$home PATH=$PATH:$(python_path) ansible-test sanity --venv --color no "$@")
}
