# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run enable [ansible-playbook options]

# Whether the options leave this very machine changed: no inventory, no pretending.
changes_this_machine() {
	for option; do
		case $option in
		-i* | --inventory* | -C | --check | -l* | --limit* | --list-* | --syntax-check) return 1 ;;
		esac
	done
}

need_controller
playbook enable "$@"
if changes_this_machine "$@"; then
	need_packages iperf3
	as_root "$VENV/bin/python" "$ROOT/scripts/show.py"
fi
