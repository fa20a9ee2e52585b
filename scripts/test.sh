# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ./run check | lint | unit | integration | test. A stage passes, fails, or says why this machine cannot run it.

. "$ROOT/scripts/pythons.sh"
. "$ROOT/scripts/sanity.sh"
. "$ROOT/scripts/archive.sh"
. "$ROOT/scripts/docs.sh"
. "$ROOT/scripts/lint.sh"
. "$ROOT/scripts/machines.sh"

passed=0
failures=0
skipped=0
summary=

# stage NAME COMMAND...: runs it in a shell of its own and goes on whatever comes.
stage() {
	title=$1
	shift
	begin=$(date +%s)
	printf '\n=== %s ===\n' "$title"
	set +e # a condition would switch it off inside, too
	(
		set -e
		"$@"
	)
	status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		verdict=passed
		passed=$((passed + 1))
	else
		verdict=FAILED
		failures=$((failures + 1))
	fi
	note "$verdict" "$title" "$(($(date +%s) - begin)) s"
}

# cannot NAME REASON: what this machine cannot run.
cannot() {
	skipped=$((skipped + 1))
	printf '\n=== %s: not run: %s ===\n' "$1" "$2"
	note 'not run' "$1" "$2"
}

note() {
	summary="$summary$(printf '%-8s %-24s %s' "$1" "$2" "$3")
"
}

# beside NAME COMMAND...: starts a command beside the stages that follow; `join` makes a stage of it.
# An interrupt from the keyboard ends it too, which a shell would keep from what it runs in the background.
beside() {
	beside=$1
	shift
	env --default-signal=INT "$@" >"$ROOT/.cache/$beside.log" 2>&1 &
	beside_id=$!
}

join() {
	beside_status=0
	wait "$beside_id" || beside_status=$?
	stage "$beside" joined
}

joined() {
	cat "$ROOT/.cache/$beside.log"
	return "$beside_status"
}

finish() {
	printf '\n=== summary ===\n%s\n%s passed, %s failed, %s skipped\n' "$summary" "$passed" "$failures" "$skipped"
	[ "$failures" -eq 0 ]
}

unit() {
	pytest "$ROOT/tests/unit" "$@"
}

need_checks() {
	need_packages shellcheck clang libbpf-dev groff-base zsh
	need_servers prometheus # for promtool
}

# The same tests on each target Python other than the controller's, except those of code that only the controller runs.
# Modules need Ansible's target half, which runs there as it is.
unit_on() {
	version=$1
	python=$2
	shift 2
	venv=$ROOT/.cache/unit/$version
	half=$ROOT/.cache/unit/ansible
	mkdir -p "$half"
	ln -sfn "$(python -c 'import ansible, os; print(os.path.dirname(ansible.__file__))')" "$half/ansible"
	if ! "$venv/bin/python" -c 'import pytest' 2>/dev/null; then
		"$python" -m venv --clear "$venv"
		pip_install "$venv" -r "$ROOT/requirements/unit.txt"
	fi
	PYTHONPATH=$half PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -q -c "$ROOT/pyproject.toml" \
		-o cache_dir="$venv/.pytest_cache" --ignore "$ROOT/tests/unit/report" --ignore "$ROOT/tests/unit/controller" "$ROOT/tests/unit" "$@"
}

unit_everywhere() {
	stage "unit" unit "$@"
	for version in $TARGET_PYTHONS; do
		if python=$(target_python "$version"); then
			stage "unit, Python $version" unit_on "$version" "$python" "$@"
		else
			cannot "unit, Python $version" "no python$version on this machine"
		fi
	done
}

# What keeps effects on this kernel from being tested; nothing if they can be.
no_effects() {
	if [ "$(id -u)" -ne 0 ] && ! have sudo; then
		say 'neither root nor sudo'
	elif ! grep -q ' - cgroup2 ' /proc/self/mountinfo; then
		say 'no cgroup2 is mounted'
	elif ! can_mount_bpf; then
		say 'no bpf file system can be mounted here (a container without privileges?)'
	fi
}

can_mount_bpf() {
	probe=$(mktemp -d)
	mounted=0
	as_root mount -t bpf bpf "$probe" 2>/dev/null || mounted=1
	[ "$mounted" -ne 0 ] || as_root umount "$probe"
	rmdir "$probe"
	return $mounted
}

live() {
	need_packages clang libbpf-dev libbpf1 iperf3 iproute2 python3-bpfcc "linux-headers-$(dpkg --print-architecture)"
	as_root env PATH="$PATH" ANSIBLE_CONFIG="$ANSIBLE_CONFIG" pytest "$@"
}

live_stage() {
	title=$1
	shift
	effects_stage "$title" live "$@"
}

# effects_stage NAME COMMAND...: a stage, where effects on this kernel can be tested.
effects_stage() {
	reason=$(no_effects)
	if [ -n "$reason" ]; then
		cannot "$1" "$reason"
	else
		stage "$@"
	fi
}

# With the proxies that connections are intercepted for.
integration() {
	need_servers curl haproxy libnginx-mod-stream nginx redsocks squid
	need_venv proxies
	live "$ROOT/tests/integration" "$@"
}

# Servers and clients that people run, as the distribution packages them.
programs() {
	need_servers apache2 curl default-jdk-headless haproxy iperf3 mariadb-client mariadb-server memcached mosquitto mosquitto-clients \
		nginx nodejs openssh-client openssh-server openssl postgresql redis-server redis-tools rsync socat vsftpd
	live "$ROOT/tests/programs" "$@"
	live "$ROOT/tests/learn"
}

# The report's page, in a real one.
browser() {
	need_packages chromium chromium-driver
	pytest "$ROOT/tests/browser"
}

browser_stage() {
	if have apt-get || { have chromium && have chromedriver; }; then
		stage browser browser
	else
		cannot browser 'neither chromium with chromedriver nor apt-get to install them'
	fi
}

# Virtual machines: the tool that makes them, and the scenario that takes a bare host there and back.
machine_stages() {
	reason=$(no_machines)
	if [ -n "$reason" ]; then
		cannot 'vm tool' "$reason"
		cannot 'molecule default' "$reason"
	else
		stage 'molecule default' scenario default
		stage 'vm tool' as_root env PATH="$PATH" pytest "$ROOT/tests/vm"
	fi
	cannot "molecule $(scenarios | grep -vx default | tr '\n' ' ')" 'they take long: ./run molecule SCENARIO'
}

need_venv development
need_collection

# shellcheck disable=SC2154 # set by run
case $command in
lint) lint ;;
unit)
	unit_everywhere "$@"
	finish
	;;
integration)
	effects_stage integration integration "$@"
	finish
	;;
check)
	stage lint lint
	stage docs docs
	stage 'ansible-test sanity' sanity
	need_checks
	unit_everywhere
	finish
	;;
test)
	need_checks # here, since one at a time can install packages
	beside check "$ROOT/run" check
	effects_stage integration integration
	join
	live_stage conformance "$ROOT/tests/conformance"
	effects_stage programs programs
	browser_stage
	live_stage fleet "$ROOT/tests/fleet" "$ROOT/tests/rollout"
	machine_stages
	finish
	;;
esac
