# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where programs can be attached, a row for each place: all else that depends on the kind of a program follows from it.

Numbers and names as in <linux/bpf.h>; section names as in libbpf's program_types documentation.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import SockredirError

CGROUP, MAP, NETNS = "cgroup", "map", "netns"
KINDS = (CGROUP, MAP, NETNS)


class Hook(NamedTuple):
    """A place on a cgroup, a sockmap or a network namespace that takes programs of one type.

    :ivar name: the attach type, as libbpf calls it.
    :ivar attach_type: its number.
    :ivar program_type: the number of the type of programs that it takes.
    :ivar kind: ``cgroup``, ``map`` or ``netns``, what the place is on.
    :ivar section: the section of an object file that its programs are in; more may follow after a slash.
    :ivar context: the struct that its programs' parameter points to.
    :ivar lost: the kind of drift when its program is no longer attached.
    """

    name: str
    attach_type: int
    program_type: int
    kind: str
    section: str
    context: str
    lost: str


SOCK_OPS = Hook("cgroup_sock_ops", 3, 13, CGROUP, "sockops", "bpf_sock_ops", "attachment_missing")
SK_MSG = Hook("sk_msg_verdict", 7, 16, MAP, "sk_msg", "sk_msg_md", "verdict_lost")
SK_SKB = Hook("sk_skb_stream_verdict", 5, 14, MAP, "sk_skb/stream_verdict", "__sk_buff", "receive_lost")
GETSOCKOPT = Hook("cgroup_getsockopt", 21, 25, CGROUP, "cgroup/getsockopt", "bpf_sockopt", "attachment_missing")

SK_LOOKUP = Hook("sk_lookup", 36, 30, NETNS, "sk_lookup", "bpf_sk_lookup", "attachment_missing")


def _sock_addr(name: str, attach_type: int, section: str) -> Hook:
    return Hook(f"cgroup_{name}", attach_type, 18, CGROUP, f"cgroup/{section}", "bpf_sock_addr", "attachment_missing")


SOCK_ADDR = (
    _sock_addr("inet4_connect", 10, "connect4"),
    _sock_addr("inet6_connect", 11, "connect6"),
    _sock_addr("udp4_sendmsg", 14, "sendmsg4"),
    _sock_addr("udp6_sendmsg", 15, "sendmsg6"),
    _sock_addr("udp4_recvmsg", 19, "recvmsg4"),
    _sock_addr("udp6_recvmsg", 20, "recvmsg6"),
    _sock_addr("inet4_getpeername", 29, "getpeername4"),
    _sock_addr("inet6_getpeername", 30, "getpeername6"),
    _sock_addr("inet4_getsockname", 31, "getsockname4"),
    _sock_addr("inet6_getsockname", 32, "getsockname6"),
)
HOOKS = (SOCK_OPS, SK_MSG, SK_SKB, GETSOCKOPT, SK_LOOKUP, *SOCK_ADDR)


def recorded(entry: Mapping[str, Any]) -> Hook:
    """Where the program of a manifest's attachment belongs.

    Version 1.0 did not write the attach type: it knew one for cgroups and one for maps.

    :raises SockredirError: the attach type is of a later version.
    """
    name = entry.get("attach_type") or (SK_MSG if entry.get(CGROUP) is None else SOCK_OPS).name
    found = [hook for hook in HOOKS if hook.name == name]
    if not found:
        raise SockredirError(
            f"manifest: {entry.get('program')} has the attach type {name}, which this version does not know",
            "use the version of the collection that wrote the manifest",
        )
    return found[0]


def target(entry: Mapping[str, Any]) -> Tuple[str, str]:
    """Kind and path of what the program of a manifest's attachment is on.

    :raises SockredirError: it is of a later version.
    """
    for kind in KINDS:
        if entry.get(kind) is not None:
            return kind, entry[kind]
    raise SockredirError(
        f"manifest: {entry.get('program')} is attached to what this version does not know",
        "use the version of the collection that wrote the manifest",
    )


def of_kind(kind: str) -> List[Hook]:
    """The places that a cgroup, a map or a network namespace has."""
    return [hook for hook in HOOKS if hook.kind == kind]


def of_program(program_type: int) -> List[Hook]:
    """The places that take programs of a type: none, or more than one where only the attach type tells them apart."""
    return [hook for hook in HOOKS if hook.program_type == program_type]


def of_section(section: str) -> Optional[Hook]:
    """Where programs in an object file's section belong; None if that is not one of the collection's hooks."""
    name = section.lstrip("?")
    return next((hook for hook in HOOKS if (name + "/").startswith(hook.section + "/")), None)


def of_context(struct: str) -> List[Hook]:
    """Where programs with a parameter of this struct may belong: none, or more than one if it does not tell."""
    return [hook for hook in HOOKS if hook.context == struct]
