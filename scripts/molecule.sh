# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run molecule [SCENARIO]: all scenarios, or one.

. "$ROOT/scripts/machines.sh"

need_venv development
need_collection
need_machines

if [ $# -gt 0 ]; then
	scenario "$@"
	exit
fi
status=0
for name in $(scenarios); do
	# In a shell of its own: it moves to the checkout, and may give up.
	(scenario "$name") || {
		warn "molecule: $name failed"
		status=1
	}
done
exit $status
