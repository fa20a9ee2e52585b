# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run molecule [SCENARIO]: all scenarios, or one.

need_venv development
need_collection
cd "$ROOT" || exit
if [ $# -gt 0 ]; then
	scenario=$1
	shift
	exec molecule test --scenario-name "$scenario" "$@"
fi
status=0
for scenario in molecule/*/molecule.yml; do
	scenario=$(basename "$(dirname "$scenario")")
	molecule test --scenario-name "$scenario" || {
		warn "molecule: $scenario failed"
		status=1
	}
done
exit $status
