# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run advise and audit: --query EXPRESSION asks the report; every other option goes to ansible-playbook.
need_controller

count=$#
while [ "$count" -gt 0 ]; do
	option=$1
	shift
	count=$((count - 1))
	case $option in
	--query | --query=*)
		if [ "$option" = --query ]; then
			[ "$count" -gt 0 ] || die "--query needs an expression; docs/queries.md has some"
			query=$1
			shift
			count=$((count - 1))
		else
			query=${option#--query=}
		fi
		# As JSON: an expression may hold blanks and quotes, which -e NAME=VALUE would take apart.
		option=$(python3 -c 'import json, sys; print(json.dumps({"report_query": sys.argv[1]}))' "$query")
		set -- "$@" -e "$option"
		;;
	*) set -- "$@" "$option" ;;
	esac
done
playbook "${command:?}" "$@"
