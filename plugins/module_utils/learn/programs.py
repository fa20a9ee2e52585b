# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of ``bpf/learn.bpf.c``, held by this process alone: those that this kernel takes, found by trying.

Nothing is pinned. Programs, maps and attachments are gone when the descriptors are, so also when the process is killed.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Iterator, List, Optional, Tuple

from ..compile import compilers
from ..errors import SockredirError
from ..kernel import btf, libbpf

_NAME = "learn"
_SCOPE_ONLY = "in_scope_only"

#: Tracepoints of sends and receives came with Linux 6.3; before that, the functions that these come through.
_TRACED = ("learn_sent", "learn_received")
_FUNCTIONS = ("learn_sent_v4", "learn_sent_v6", "learn_received_v4", "learn_received_v6")
_PAGES = ("learn_sent_page",)
#: What sees splice and FIONREAD: functions if the kernel has fentry, else a tracepoint that each receive passes.
_CALLS = ("learn_spliced", "learn_asked")
_EACH_READ = ("learn_read",)
#: Where io_uring completes requests: the kernel may be built without it.
_RING = ("learn_ring",)
_STATE = "learn_state"


class Choice:
    """A set of programs that does all of it.

    :ivar calls: those that see single calls.
    :ivar messages: those that run at each message, which cost.
    """

    def __init__(self, calls: Tuple[str, ...], messages: Tuple[str, ...]) -> None:
        self.calls, self.messages = calls, messages

    def names(self) -> Tuple[str, ...]:
        # What a kernel may refuse comes first.
        return (*self.calls, *self.messages, _STATE)


_WITHOUT_RING = (
    Choice(_CALLS, _TRACED),
    Choice((), (*_TRACED, *_EACH_READ)),
    Choice(_CALLS, (*_FUNCTIONS, *_PAGES)),
    Choice(_CALLS, _FUNCTIONS),
)
#: Those that see most come first; among these, the cheapest.
CHOICES = (*(Choice(one.calls, (*one.messages, *_RING)) for one in _WITHOUT_RING), *_WITHOUT_RING)


class Held:
    """Loaded and attached programs."""

    def __init__(self, held: libbpf.Object, choice: Choice) -> None:
        self._held = held
        self._messages = [program for program in held.programs() if program.name in choice.messages]
        self._attached = contextlib.ExitStack()
        #: bool, whether what runs at each message is attached.
        self.watching = False
        #: bool, whether FIONREAD can be seen.
        self.sees_fionread = bool(choice.calls)
        #: bool, whether sends requested from io_uring can be seen.
        self.sees_ring = _RING[0] in choice.messages

    def map(self, name: str) -> libbpf.Map:
        found = next(one for one in self._held.maps() if one.name == name)
        return libbpf.Map(libbpf.Fd(os.dup(found.fileno())))

    def resume(self) -> None:
        """Attach what runs at each message."""
        for program in self._messages:
            self._attached.enter_context(_attached(program))
        self.watching = True

    def pause(self) -> None:
        """Detach what runs at each message."""
        self.watching = False
        self._attached.close()


def build(source: str) -> bytes:
    """The object: the file itself if it is one, else what clang makes of it.

    :raises SockredirError: there is no such file, no clang, or it does not compile.
    """
    if source.endswith(".o"):
        return compilers.read(source)
    return compilers.compile_clang(source, {}).data


@contextlib.contextmanager
def held(data: bytes, cgroup: Optional[str]) -> Iterator[Held]:
    """The first choice that this kernel takes; what runs at each message is not attached yet.

    :param cgroup: str, directory of the cgroup whose programs to watch; None for all of the host.
    :raises SockredirError: it takes none.
    """
    with contextlib.ExitStack() as stack:
        found = _first(data, cgroup, stack)
        if cgroup is not None:
            _set_scope(found, cgroup)
        stack.callback(found.pause)
        yield found


def _first(data: bytes, cgroup: Optional[str], stack: contextlib.ExitStack) -> Held:
    refused: List[libbpf.BpfError] = []
    for choice in CHOICES:
        with contextlib.ExitStack() as trial:
            try:
                found = _tried(data, choice, cgroup is not None, trial)
            except libbpf.BpfError as error:
                refused.append(error)
                continue
            stack.enter_context(trial.pop_all())
            return found
    raise SockredirError(
        f"the kernel does not accept the learning programs: {refused[0].message}",
        refused[0].cure or "learning needs BTF, and Linux 6.3 or newer or a kernel with fexit",
        "\n".join(error.detail for error in refused),
    )


def _tried(data: bytes, choice: Choice, scoped: bool, stack: contextlib.ExitStack) -> Held:
    """Load, and attach all but what runs at each message."""
    own = stack.enter_context(libbpf.Object(data, _NAME))
    for program in own.programs():
        program.set_autoload(program.name in choice.names())
    if scoped:
        _set(own, _SCOPE_ONLY, 1)
    own.load()
    for program in own.programs():
        if program.name in (*choice.calls, _STATE):
            stack.enter_context(_attached(program))
    return Held(own, choice)


def _set(own: libbpf.Object, name: str, value: int) -> None:
    """Set a ``const volatile`` variable."""
    rodata = next(one for one in own.maps() if one.internal and one.name.endswith(".rodata"))
    types = btf.Btf(own.btf())
    variable = types.variables(".rodata")[name]
    content = bytearray(rodata.initial_value())
    content[variable.offset : variable.offset + variable.size] = types.encode(variable.type_id, value)
    rodata.set_initial_value(bytes(content))


def _set_scope(found: Held, cgroup: str) -> None:
    number = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with found.map("scope") as scope:
            scope.update(bytes(4), struct.pack("=I", number))
    finally:
        os.close(number)


def _attached(program: libbpf.ObjectProgram) -> libbpf.Fd:
    try:
        return libbpf.open_tracepoint(program.fileno())
    except libbpf.BpfError as error:
        error.message = f"{program.section}: {error.message}"
        raise
