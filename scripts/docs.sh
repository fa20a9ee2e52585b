# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run docs: the documentation as a site, from docs/, the READMEs, the changelog and what modules and role say of themselves.

SITE=$ROOT/.cache/docs

# Sphinx needs other versions than ansible-lint and molecule do, hence an environment of its own.
need_sphinx() {
	venv=$SITE/venv
	wanted=$(cd "$ROOT" && { say "$ROOT" && cat requirements/docs.txt; } | sha256sum)
	[ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ] || return 0
	say "Setting up Sphinx in .cache/docs/venv"
	find_python >/dev/null || need_packages python3 python3-venv
	python=$(find_python) || die "Sphinx needs Python 3.11 or newer with its venv module; none is installed here"
	mkdir -p "$SITE"
	"$python" -m venv --clear "$venv"
	pip_install "$venv" -r "$ROOT/requirements/docs.txt"
	say "$wanted" >"$venv/.wanted"
}

# A tree like the checkout's, so that links in it lead where they lead in the checkout.
site_sources() {
	source=$SITE/source
	rm -rf "$source"
	mkdir -p "$source/reference"
	existing_files | (cd "$ROOT" && tr '\0' '\n' | grep -E '^(docs|examples|roles|LICENSES)/|^[A-Z]+[A-Z_]*(\.md)?$' | tar -cf - -T -) | tar -C "$source" -xf -
	cp -R "$ROOT/scripts/site/." "$source"
	"$SITE/venv/bin/python" "$ROOT/scripts/site/chart.py" "$ROOT/docs/benchmark.md" "$source/docs/images/benchmark.svg" &&
		env PATH="$SITE/venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$ROOT/.cache" antsibull-docs collection --use-current \
			--squash-hierarchy --dest-dir "$source/reference" ebpf.sockredir
}

# Warnings are errors: a link to a page or a section that is not there is one.
docs() {
	need_sphinx
	site_sources || return
	rm -rf "$SITE/html"
	SOCKREDIR_ROOT=$ROOT "$SITE/venv/bin/sphinx-build" -q -W --keep-going -n -j auto -d "$SITE/doctrees" "$SITE/source" "$SITE/html" || return
	"$SITE/venv/bin/python" "$ROOT/scripts/site/links.py" "$SITE/html" || return
	say "$SITE/html/index.html"
}
