#!/bin/sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# As soon as the programs are pinned, this host's network goes without a word for three minutes. Waits for ten at most.
# shellcheck disable=SC2016 # the inner shell expands it
exec systemd-run --quiet --unit=lose-network --collect sh -c '
	for _turn in $(seq 3000); do
		[ -e /sys/fs/bpf/sockredir/verdict ] && break
		sleep 0.2
	done
	route=$(ip route show default)
	ip link set eth0 down
	sleep 180
	ip link set eth0 up
	[ -z "$route" ] || ip route replace $route
'
