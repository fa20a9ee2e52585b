# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl exec --user``: become another user, as runuser(1) does."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Dict, List

from ..errors import SockredirError

_SHELL = "/bin/sh"


def find(name: str) -> pwd.struct_passwd:
    """A user by name, or by number.

    :raises SockredirError: there is no such user.
    """
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(name))
    except (KeyError, ValueError, OverflowError):
        raise SockredirError(f"there is no user {name!r}", "see: getent passwd") from None


def environment(user: pwd.struct_passwd) -> Dict[str, str]:
    """The variables that say who one is."""
    name = user.pw_name
    return {"HOME": user.pw_dir, "SHELL": user.pw_shell or _SHELL, "USER": name, "LOGNAME": name}


def become(user: pwd.struct_passwd) -> None:
    """Take a user's groups, group and number for good, and say so in the environment.

    :raises SockredirError: the kernel refuses; names what it refused.
    """
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    try:
        os.setgroups(groups)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    except OSError as error:
        raise _refused(f"the groups {_named(groups)} of {user.pw_name}", error) from error
    try:
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        raise _refused(f"the user {user.pw_name}", error) from error
    os.environ.update(environment(user))


def _named(groups: List[int]) -> str:
    return ", ".join(_name(number) for number in groups)


def _name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _refused(what: str, error: OSError) -> SockredirError:
    return SockredirError(f"cannot become {what}: {error.strerror}", "run it as root, outside a restricted container")
