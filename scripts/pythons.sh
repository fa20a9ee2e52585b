# shellcheck shell=sh
# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# The Pythons of this machine that a target may have too.

TARGET_PYTHONS='3.8 3.9 3.10 3.11 3.12 3.13'

# target_python VERSION: its interpreter, from PATH or from pyenv; fails if there is none.
target_python() {
	for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1" "$(command -v "python$1" || true)"; do
		if [ -x "$python" ] && "$python" -c 'import venv, ensurepip' 2>/dev/null; then
			say "$python"
			return
		fi
	done
	return 1
}

# Their folders, as an addition to PATH.
python_path() {
	path=
	for version in $TARGET_PYTHONS; do
		python=$(target_python "$version") && path=$path:$(dirname "$python")
	done
	say "${path#:}"
}
