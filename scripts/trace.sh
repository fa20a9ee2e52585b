# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run trace: live on this machine; from the hosts of an inventory when they have finished.

tool=${SOCKREDIRCTL:-/usr/local/sbin/sockredirctl}
if this_machine "$@"; then
	[ -x "$tool" ] || die "$tool is not there: ./run enable first"
	as_root "$tool" trace "$@"
else
	need_controller
	playbook trace "$@"
fi
