# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount a bpffs, and keep directories and pins on it: observe, plan, apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Union

from ...change.step import Plan
from ...change.transaction import Watch, apply
from ...errors import SockredirError
from ...host import mounts
from ...state import lock
from . import plan as planning
from .apply import handlers
from .observe import observe
from .plan import DIRECTORY, PRESENT, Observed, Wanted

if TYPE_CHECKING:
    pass


class Result(NamedTuple):
    """:ivar notes: what an operator should know, one line each."""

    steps: Plan
    observed: Observed
    notes: List[str]


def ensure(
    wanted: Wanted, state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> Result:
    """Make it so, or with ``wanted.check`` say what that takes.

    :param state_dir: str if the host's lock is.
    :param wait_seconds: float, how long to wait for another run on this host.
    :raises SockredirError: it cannot be had; the host is as it was.
    """
    if wanted.check:
        observed = observe(wanted)
        return Result(planning.plan(wanted, observed), observed, _notes(wanted, observed))
    with lock.hold(state_dir, wait_seconds):
        observed = observe(wanted)
        steps = planning.plan(wanted, observed)
        apply(steps, handlers(), watch)
        observed = observe(wanted) if steps else observed
    return Result(steps, observed, _notes(wanted, observed))


def _notes(wanted: Wanted, observed: Observed) -> List[str]:
    notes = []
    if wanted.state in (DIRECTORY, PRESENT) and observed.fstype != planning.BPFFS:
        notes.append(f"no bpffs is mounted for {wanted.path} yet; an earlier task has to mount it")
    if wanted.state == PRESENT and observed.source_number is None:
        notes.append(f"{wanted.source} is not there yet; an earlier task has to load it")
    mounted = mounts.read()
    stacked = [mount for mount in mounts.of_type(mounts.BPFFS, mounted) if mount.point == observed.mount_point]
    if len(stacked) > 1:
        notes.append(
            f"bpffs is mounted {len(stacked)} times at {observed.mount_point}: pins below the topmost are hidden"
        )
    return notes


def user_id(name: Optional[str]) -> Optional[int]:
    """The id of a user given by name or id.

    :raises SockredirError: there is no such user.
    """
    import pwd

    return _account(name, "owner", lambda text: pwd.getpwnam(text).pw_uid)


def group_id(name: Optional[str]) -> Optional[int]:
    """The id of a group given by name or id.

    :raises SockredirError: there is no such group.
    """
    import grp

    return _account(name, "group", lambda text: grp.getgrnam(text).gr_gid)


def _account(name: Optional[str], option: str, look_up: Callable[[str], int]) -> Optional[int]:
    if name is None or name.isdigit():
        return None if name is None else int(name)
    try:
        return look_up(name)
    except KeyError:
        raise SockredirError(f"{option}: {name} is unknown on this host", "create it, or give an id") from None


def permissions(mode: Union[int, str, None]) -> Optional[int]:
    """Permissions from octal text such as ``0700``, or from the number that YAML has made of it.

    :raises SockredirError: it is neither.
    """
    try:
        number = int(mode, 8) if isinstance(mode, str) else mode
    except ValueError:
        number = -1
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 0o7777):
        raise SockredirError(f"mode: {mode} is not a mode in octal", "write it as in mode: '0700'")
    return number
