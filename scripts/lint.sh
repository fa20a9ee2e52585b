# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Style, warnings and licences: every check runs, then the verdict.

lint() {
	need_packages shellcheck clang libbpf-dev
	cd "$ROOT" || return
	failed=
	check ruff ruff check --quiet
	check ruff-format ruff format --check --quiet
	check annotations lint_annotations
	check yamllint yamllint --strict .
	check ansible-lint lint_ansible
	check shellcheck lint_shell
	check c-warnings lint_c_warnings
	check c-format lint_c_format
	check lengths lint_lengths
	check licences lint_licences
	check changelog antsibull-changelog lint
	check galaxy lint_galaxy
	[ -z "$failed" ] || {
		warn "lint: failed:$failed"
		return 1
	}
}

# check NAME COMMAND...: says what failed and goes on.
check() {
	name=$1
	shift
	if output=$("$@" 2>&1); then
		say "ok    $name"
	else
		say "FAIL  $name"
		say "$output"
		failed="$failed $name"
	fi
}

lint_annotations() { mypy -p ansible_collections.ebpf.sockredir.plugins; }

lint_ansible() { NO_COLOR=1 ansible-lint --offline -q; }

lint_shell() {
	tracked_files | tr '\0' '\n' | grep -E '(^run|^\.ci/run|\.sh)$' | xargs shellcheck -x
}

c_files() { tracked_files | tr '\0' '\n' | grep -E "^(bpf|molecule|tests)/.*$1\$" || true; }

lint_c_warnings() {
	status=0
	# BCC's dialect (..._bcc.c) compiles only with BCC.
	for file in $(c_files '\.c' | grep -v '_bcc\.c$'); do
		case $file in
		*.bpf.c) set -- -target bpf -O2 -g -I"/usr/include/$(uname -m)-linux-gnu" -o /dev/null -c ;;
		*) set -- -fsyntax-only ;;
		esac
		clang -Wall -Wextra -Werror -Ibpf "$@" "$file" || status=1
	done
	return $status
}

lint_c_format() {
	files=$(c_files '\.[ch]')
	# shellcheck disable=SC2086 # a list of names without spaces
	[ -z "$files" ] || clang-format --dry-run --Werror $files
}

# A file that is longer has more than one subject. A module's documentation has to be in its file.
lint_lengths() {
	tracked_files | tr '\0' '\n' | grep -E '(^run|\.(py|c|h|sh))$' | xargs awk '
		FNR == 1 { lines = 0; prose = 0 }
		/^(DOCUMENTATION|EXAMPLES|RETURN) = r"""$/ { prose = 1 }
		!prose && ++lines == 401 { print FILENAME ": more than 400 lines"; long = 1 }
		/^"""$/ { prose = 0 }
		END { exit long }'
}

lint_licences() { reuse lint --lines; }

# What would be published is what Galaxy takes. Until there is an address, one that is kept for examples stands for it.
lint_galaxy() {
	archive=$(make_archive "${ADDRESS:-https://example.com/sockredir}" .cache/lint) || return
	# ansible-lint has run over the checkout.
	said=$(GALAXY_IMPORTER_RUN_ANSIBLE_LINT=false python -m galaxy_importer.main "$archive" 2>&1) || {
		say "$said"
		return 1
	}
	! say "$said" | grep -E '^(WARNING|ERROR)|^.*: (WARNING|ERROR)'
}
