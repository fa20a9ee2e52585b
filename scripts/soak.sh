# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run soak [MINUTES] [OPTIONS]: random operations while settings change; the options are those of tests/conformance/run.py.

minutes=30
case ${1-} in
'' | -*) ;;
*)
	minutes=$1
	shift
	;;
esac
have python3 || need_packages python3
need_packages clang libbpf-dev libbpf1
as_root python3 "$ROOT/tests/conformance/run.py" --soak "$minutes" "$@"
