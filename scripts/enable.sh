# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run enable [ansible-playbook options]

need_controller
playbook enable "$@"
if this_machine "$@"; then
	need_packages iperf3
	as_root "$VENV/bin/python" "$ROOT/scripts/show.py" "${SOCKREDIRCTL:-/usr/local/sbin/sockredirctl}"
fi
