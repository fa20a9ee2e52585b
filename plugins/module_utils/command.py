# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program of this host: with a deadline, in English, and its output as it is."""

from __future__ import annotations

import os
import subprocess
from typing import Optional, Sequence

from .errors import SockredirError


def run(
    command: Sequence[str], timeout: int, directory: Optional[str] = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, whatever its exit code.

    :param timeout: int, seconds.
    :param directory: str, where it runs; here if None.
    :param given: bytes, its standard input.
    :raises SockredirError: it cannot be started, or does not end in time.
    """
    try:
        # The rule is AnsibleModule.run_command, but the tool on the host runs this too, without Ansible.
        return subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            cwd=directory,
            env=dict(os.environ, LC_ALL="C"),
            input=given,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SockredirError(f"{command[0]} did not end within {timeout} s") from error
    except OSError as error:
        raise SockredirError(f"cannot run {command[0]}: {error.strerror}") from error
