# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run enable [ansible-playbook options]

need_controller
say "Enabling: preflight, compile, load, attach, measure, verify; each task is named while it runs"
playbook enable "$@"
if this_machine "$@"; then
	need_packages iperf3
	say "Showing what it did: bytes sent through it, then some transfers of 3 seconds"
	as_root "$VENV/bin/python" "$ROOT/scripts/show.py" "${SOCKREDIRCTL:-/usr/local/sbin/sockredirctl}"
fi
