# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The C calls that Python's standard library lacks (or has only in newer versions), with OSError on failure."""

import ctypes
import mmap
import os
import socket
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNET = 0x40000000
SPLICE_F_NONBLOCK = 2
SIOCINQ = 0x541B
SIOCOUTQ = 0x5411
SIOCATMARK = 0x8905
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_ZEROCOPY = 60
SO_NETNS_COOKIE = 71
MSG_ZEROCOPY = 0x4000000
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30
TCP_ULP = 31
TCP_ZEROCOPY_RECEIVE = 35
TCP_INQ = 36
IPPROTO_MPTCP = 262
SOL_TLS = 282


def _checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def namespace(sock):
    """Cookie of the socket's network namespace."""
    return struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]


def without_ktls():
    """Why kernel TLS cannot be used here, or None."""
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        try:
            client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError as error:
            return f"this kernel has no TLS (setsockopt TCP_ULP: {error.strerror})"
    return None


def linger(on, seconds):
    """The value of SO_LINGER."""
    return struct.pack("ii", int(on), seconds)


def timeval(seconds):
    """The value of SO_RCVTIMEO and SO_SNDTIMEO."""
    return struct.pack("ll", int(seconds), int((seconds % 1) * 1e6))


def recv(sock, count, flags=0):
    """recv(2) without Python's own retry after EINTR."""
    buffer = ctypes.create_string_buffer(count)
    _LIBC.recv.restype = ctypes.c_ssize_t
    got = _checked(_LIBC.recv(sock.fileno(), buffer, ctypes.c_size_t(count), flags))
    return buffer.raw[:got]


def send(sock, data, flags=socket.MSG_NOSIGNAL):
    """send(2) without Python's own retry after EINTR."""
    data = bytes(data)
    _LIBC.send.restype = ctypes.c_ssize_t
    return _checked(_LIBC.send(sock.fileno(), data, ctypes.c_size_t(len(data)), flags))


def send_address(sock, address, count):
    """send(2) from any address, mapped or not."""
    _LIBC.send.restype = ctypes.c_ssize_t
    return _checked(_LIBC.send(sock.fileno(), ctypes.c_void_p(address), ctypes.c_size_t(count), socket.MSG_NOSIGNAL))


def recv_address(sock, address, count):
    """recv(2) to any address, mapped or not."""
    _LIBC.recv.restype = ctypes.c_ssize_t
    return _checked(_LIBC.recv(sock.fileno(), ctypes.c_void_p(address), ctypes.c_size_t(count), 0))


def splice(source, target, count, flags=0):
    """splice(2) between file descriptors, one of which is a pipe. Returns the number of bytes moved."""
    _LIBC.splice.restype = ctypes.c_ssize_t
    return _checked(_LIBC.splice(source, None, target, None, ctypes.c_size_t(count), flags))


def unshare_network():
    """Put this process into a new network namespace, with the loopback interface up."""
    _checked(_LIBC.unshare(CLONE_NEWNET))
    loopback_up()


def loopback_up():
    """Set the loopback interface of this namespace up (::1 and 127.0.0.1 come with that)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


class _ZeroCopyReceive(ctypes.Structure):
    """struct tcp_zerocopy_receive of Linux 5.11 and later."""

    _fields_ = [
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("recv_skip_hint", ctypes.c_uint32),
        ("inq", ctypes.c_uint32),
        ("err", ctypes.c_int32),
        ("copybuf_address", ctypes.c_uint64),
        ("copybuf_len", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    ]


def zero_copy_receive(sock, count):
    """TCP_ZEROCOPY_RECEIVE into a page that is the socket's; returns how many bytes it mapped there, or copied."""
    _LIBC.mmap.restype = ctypes.c_void_p
    page = _LIBC.mmap(
        None, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ, mmap.MAP_SHARED, sock.fileno(), ctypes.c_long(0)
    )
    buffer = ctypes.create_string_buffer(count)
    call = _ZeroCopyReceive(
        address=page, length=mmap.PAGESIZE, copybuf_address=ctypes.addressof(buffer), copybuf_len=count
    )
    size = ctypes.c_uint(ctypes.sizeof(call))
    where = ctypes.byref(call), ctypes.byref(size)
    try:
        _checked(_LIBC.getsockopt(sock.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, *where))
    finally:
        _LIBC.munmap(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE))
    return call.length + call.copybuf_len


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("header", _Msghdr), ("length", ctypes.c_uint)]


def _vectors(buffers):
    headers = (_Mmsghdr * len(buffers))()
    iovecs = (_Iovec * len(buffers))()
    for index, buffer in enumerate(buffers):
        iovecs[index] = _Iovec(ctypes.addressof(buffer), ctypes.sizeof(buffer))
        headers[index].header.iov = ctypes.pointer(iovecs[index])
        headers[index].header.iovlen = 1
    return headers, iovecs


def sendmmsg(sock, messages):
    """sendmmsg(2). Returns the list of bytes sent of each message taken."""
    buffers = [(ctypes.c_char * len(message)).from_buffer_copy(message) for message in messages]
    headers, _iovecs = _vectors(buffers)
    count = _checked(_LIBC.sendmmsg(sock.fileno(), headers, len(buffers), socket.MSG_NOSIGNAL))
    return [headers[index].length for index in range(count)]


def recvmmsg(sock, size, count, flags=0):
    """recvmmsg(2) of up to ``count`` messages of ``size`` bytes. Returns the bytes received, joined."""
    buffers = [ctypes.create_string_buffer(size) for _index in range(count)]
    headers, _iovecs = _vectors(buffers)
    got = _checked(_LIBC.recvmmsg(sock.fileno(), headers, count, flags, None))
    return b"".join(buffers[index].raw[: headers[index].length] for index in range(got))


def disconnect(sock):
    """connect(2) to AF_UNSPEC: dissolve the association, keep the socket."""
    address = struct.pack("H14x", socket.AF_UNSPEC)
    _checked(_LIBC.connect(sock.fileno(), address, len(address)))


def lose_segments(sock, one_in):
    """Drop one in so many segments that come to the socket, by chance, until :func:`lose_no_more`."""
    program = (
        struct.pack("HBBI", 0x20, 0, 0, 0xFFFFF038)  # load a random number: SKF_AD_OFF + SKF_AD_RANDOM
        + struct.pack("HBBI", 0x35, 0, 1, min(0xFFFFFFFF, int((1 << 32) / one_in)))  # at least that?
        + struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # take all of it
        + struct.pack("HBBI", 0x06, 0, 0, 0)  # nothing
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)


def lose_no_more(sock):
    """All segments come again."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def ioctl_int(sock, request):
    """An ioctl that fills one int."""
    import array
    import fcntl

    value = array.array("i", [0])
    fcntl.ioctl(sock, request, value)
    return value[0]
