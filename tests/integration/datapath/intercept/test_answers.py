# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SO_ORIGINAL_DST is answered as iptables would, and nothing else is answered otherwise than before."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

import pytest
from support.interception import FAR4, FAR6, SO_ORIGINAL_DST, SOL_IPV6

#: Levels of getsockopt() and the options that are asked there.
ASKED = {
    socket.SOL_SOCKET: range(90),
    socket.IPPROTO_IP: range(100),
    socket.IPPROTO_TCP: range(60),
    SOL_IPV6: range(100),
    socket.IPPROTO_UDP: range(20),
    274: range(10),
}
#: What changes from one moment to the next (SO_MEMINFO, TCP_INFO, TCP_TIMESTAMP): its length is compared.
MOVING = {(socket.SOL_SOCKET, 55), (socket.IPPROTO_TCP, 11), (socket.IPPROTO_TCP, 24)}
SIZES = (4, 28, 300)


@pytest.fixture
def accepted(intercepted):
    """The proxy's socket of an intercepted connection; called with the destination."""

    def make(address: str) -> socket.socket:
        with intercepted.as_proxy():
            listener = intercepted.keep(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
            plain = intercepted.keep(socket.create_server(("127.0.0.1", 0)))
        intercepted.write(intercepted.rule((plain if address == FAR4 else listener).getsockname()[1]))
        intercepted.connect(address, 80)
        return intercepted.keep((plain if address == FAR4 else listener).accept()[0])

    return make


def ask(sock: socket.socket, level: int, name: int, size: int):
    """Result, errno, length and the buffer that it wrote into."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer, length = ctypes.create_string_buffer(b"\xaa" * 512, 512), ctypes.c_uint(size)
    ctypes.set_errno(0)
    result = libc.getsockopt(sock.fileno(), level, name, buffer, ctypes.byref(length))
    seen = b"" if (level, name) in MOVING else buffer.raw
    return result, ctypes.get_errno(), length.value, seen


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_900_other_answers_are_unchanged(intercepted, accepted, address):
    sock = accepted(address)
    questions = [
        (level, name, size)
        for level, names in ASKED.items()
        for name in names
        for size in SIZES
        if name != SO_ORIGINAL_DST or level not in (socket.SOL_IP, SOL_IPV6)
    ]
    assert len(questions) > 900
    with intercepted.without("getsockopt"):
        before = {question: ask(sock, *question) for question in questions}
    after = {question: ask(sock, *question) for question in questions}
    assert {question: (before[question], found) for question, found in after.items() if found != before[question]} == {}
    assert intercepted.counts()["answered"] == 0


def test_the_answer_is_that_of_iptables(accepted):
    sock = accepted(FAR4)
    wanted = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + socket.inet_aton(FAR4) + bytes(8)
    for size in (16, 28, 300):
        result, _errno, length, buffer = ask(sock, socket.SOL_IP, SO_ORIGINAL_DST, size)
        assert (result, length) == (0, 16)
        assert buffer == wanted + b"\xaa" * 496


def test_the_answer_over_ipv6_is_that_of_ip6tables(accepted):
    sock = accepted(FAR6)
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!H", 80) + bytes(4)
    wanted = head + socket.inet_pton(socket.AF_INET6, FAR6) + bytes(4)
    result, _errno, length, buffer = ask(sock, SOL_IPV6, SO_ORIGINAL_DST, 64)
    assert (result, length) == (0, 28)
    assert buffer == wanted + b"\xaa" * 484


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_a_buffer_too_small_and_the_other_family_get_what_the_kernel_says(intercepted, accepted, address):
    sock = accepted(address)
    other = socket.SOL_IP if address == FAR6 else SOL_IPV6
    own = SOL_IPV6 if address == FAR6 else socket.SOL_IP
    for question in [(own, SO_ORIGINAL_DST, size) for size in (0, 1, 15)] + [(other, SO_ORIGINAL_DST, 64)]:
        found = ask(sock, *question)
        with intercepted.without("getsockopt"):
            assert found == ask(sock, *question)
        assert found[0] == -1
        assert found[1] in (errno.ENOPROTOOPT, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EFAULT)


def test_sockets_that_nobody_intercepted_are_not_answered(intercepted):
    with intercepted.as_proxy():
        listener = intercepted.keep(socket.create_server(("127.0.0.1", 0)))
    intercepted.write(intercepted.rule(listener.getsockname()[1]))
    client = intercepted.keep(socket.create_connection(listener.getsockname()))
    for sock in (listener, client, intercepted.keep(listener.accept()[0])):
        assert ask(sock, socket.SOL_IP, SO_ORIGINAL_DST, 16)[0] == -1
    assert intercepted.counts(1)["unclaimed"] == 1
