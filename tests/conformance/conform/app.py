# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a case sees: its transcript, its sockets, and the threads and processes it starts."""

import errno
import functools
import hashlib
import os
import select
import socket
import threading
import time
import traceback

from . import libc

#: Patience in seconds for things that TCP does at once. A hang bound, not a measurement.
SOON = 15.0
#: Seconds for which the kernel may keep a socket whose program has closed it: tcp_fin_timeout (FIN_WAIT2), and some.
ORPHANED = 75.0


class Mismatch(AssertionError):
    """The case found something that no transport may do (wrong bytes, no progress)."""


def shown(value):
    """Return ``value`` as the transcript shows it: long bytes by length and digest, errors by errno name."""
    if isinstance(value, OSError):
        return errno.errorcode.get(value.errno, str(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        if len(value) > 48:
            return f"{len(value)} bytes sha256:{hashlib.sha256(value).hexdigest()[:16]}"
        return repr(value)
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in sorted(value.items())}
    return value


class Transcript:
    """The ordered list of (label, value) that an application observed. Labels are unique."""

    def __init__(self):
        self.lines = []

    def __call__(self, label, value):
        if any(label == known for known, _value in self.lines):
            raise ValueError(f"label used twice: {label}")
        self.lines.append([label, shown(value)])
        return value

    def call(self, label, function, *arguments):
        """Call and record what it returned, or the name of its errno. Returns the value, or None on an error."""
        try:
            value = function(*arguments)
        except OSError as error:
            self(label, error)
            return None
        self(label, value)
        return value


class Task(threading.Thread):
    """A thread whose result, or error, the case collects with :meth:`result`."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._call = (function, arguments)
        self._value = None
        self._error = None
        self.start()

    def run(self):
        function, arguments = self._call
        try:
            self._value = function(*arguments)
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    def result(self, seconds=None):
        """Return the function's value or raise its error; Mismatch when it has not ended in time."""
        self.join(seconds)
        if self.is_alive():
            raise Mismatch("{} did not return".format(getattr(self._call[0], "__name__", "thread")))
        if self._error is not None:
            raise self._error
        return self._value

    def blocked(self, seconds=0.3):
        """True when the thread still runs after ``seconds``."""
        self.join(seconds)
        return self.is_alive()


class Process:
    """A forked process of the case; :meth:`exit_code` waits for it."""

    def __init__(self, function, *arguments):
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                function(*arguments)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def exit_code(self):
        """Return the exit status, or minus the signal's number."""
        _pid, status = os.waitpid(self.pid, 0)
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Family:
    """How the two ends of a connection are addressed."""

    def __init__(self, name, server, client):
        self.name = name
        self.server_family, self.server_host = server
        self.client_family, self.client_host = client


FAMILIES = {
    family.name: family
    for family in (
        Family("ipv4", (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.1")),
        Family("ipv6", (socket.AF_INET6, "::1"), (socket.AF_INET6, "::1")),
        # A dual-stack listener, as most servers have it: its accepted sockets are AF_INET6 with v4-mapped addresses.
        Family("mapped", (socket.AF_INET6, "::"), (socket.AF_INET, "127.0.0.1")),
        Family("mapped-client", (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")),
    )
}


class Net:
    """Makes the sockets of a case in its family, and carries requests to the operator (the runner)."""

    #: Seconds that a reader that resumes may be kept waiting for the next bytes; TCP takes milliseconds.
    PROMPT = 3.0

    def __init__(self, family, scale, patience, outside, operator=None, connected=None):
        self.family = FAMILIES[family]
        self.scale = scale
        self.prompt = self.PROMPT * patience
        self._outside = outside
        self._operator = operator
        self._connected = connected or (lambda make: make())

    def scaled(self, count, least=1):
        """``count`` made smaller on slow machines; never less than ``least``."""
        return max(least, int(count * self.scale))

    def operate(self, request):
        """Have the operator do ``request`` (a mode change, attach, detach) now; on plain TCP nothing is done."""
        if self._operator is not None:
            self._operator(request)

    def leave(self):
        """Move the calling process to a cgroup that is on plain TCP."""
        with open(os.path.join(self._outside, "cgroup.procs"), "w") as procs:
            procs.write("0")

    def server_socket(self, protocol=0):
        """An unbound server socket that may take a port in TIME_WAIT."""
        sock = socket.socket(self.family.server_family, socket.SOCK_STREAM, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.family.server_family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return sock

    def client_socket(self, protocol=0):
        """An unconnected client socket."""
        return socket.socket(self.family.client_family, socket.SOCK_STREAM, protocol)

    def listen(self, backlog=128, port=0, sock=None):
        """A listening socket."""
        sock = sock or self.server_socket()
        sock.bind((self.family.server_host, port))
        sock.listen(backlog)
        return sock

    def address(self, listener):
        """Where a client of this family finds ``listener``."""
        return (self.family.client_host, listener.getsockname()[1])

    def connect(self, listener, sock=None):
        """A client socket connected to ``listener``."""
        sock = sock or self.client_socket()
        sock.connect(self.address(listener))
        return sock

    def pair(self, client=None, listener=None):
        """A connected (client, server) pair of sockets, both ends established and accepted."""
        own = listener is None
        listener = listener or self.listen()
        pair = self._connected(lambda: (self.connect(listener, client), listener.accept()[0]))
        if own:
            listener.close()
        return pair


def read_exactly(sock, count, chunk=1 << 16, empty_handed=None):
    """Read ``count`` bytes; fewer only at the end of the stream.

    empty_handed: a list that notes each EAGAIN of a blocking recv (limit blocked-recv), after which reading goes on.
    """
    parts = []
    while count:
        try:
            part = sock.recv(min(chunk, count))
        except BlockingIOError:
            if empty_handed is None:
                raise
            empty_handed.append(True)
            continue
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_all(sock, chunk=1 << 16):
    """Read up to the end of the stream."""
    parts = []
    while True:
        part = sock.recv(chunk)
        if not part:
            return b"".join(parts)
        parts.append(part)


def read_all_polled(sock, chunk=1 << 16):
    """Read up to the end of the stream without waiting inside recv, where the limit blocked-recv would show."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    parts = []
    while True:
        poller.poll()
        part = sock.recv(chunk)
        if not part:
            return b"".join(parts)
        parts.append(part)


@functools.lru_cache(maxsize=32)
def _block(seed):
    return hashlib.shake_128(b"stream %d" % seed).digest(1 << 20)


def _blocks(seed):
    """The stream's blocks of 1 MiB, without end: the same bytes, but for the place at the beginning of each."""
    block = _block(seed)
    yield block
    index = len(block)
    while True:
        mark = b"%016d" % (index + seed)
        yield mark + block[len(mark) :]
        index += len(block)


def pattern(count, seed=1):
    """The first ``count`` bytes of stream number ``seed``, in which every loss, repeat and swap shows."""
    parts = []
    for block in _blocks(seed):
        parts.append(block[:count])
        count -= len(parts[-1])
        if not count:
            return b"".join(parts)
    return None


def readable(sock, seconds=SOON):
    """True as soon as a read would not block; False when that does not happen in time."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def events(sock, mask=select.POLLIN | select.POLLOUT | select.POLLRDHUP):
    """The names of what poll reports at once."""
    poller = select.poll()
    poller.register(sock, mask)
    names = ("POLLIN", "POLLOUT", "POLLERR", "POLLHUP", "POLLRDHUP")
    ready = dict(poller.poll(0)).get(sock.fileno(), 0)
    return [name for name in names if ready & getattr(select, name)]


def quiet(sock, seconds=0.15):
    """True when nothing becomes readable for a moment."""
    return not readable(sock, seconds)


def eventually(condition, seconds=SOON):
    """Wait until ``condition()`` is true; returns whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def fill(sock, limit=512 << 20, chunk=1 << 16, settle=0.3):
    """Write the pattern to ``sock`` until it takes nothing for ``settle`` seconds, or ``limit`` bytes are written.

    Returns (bytes written, blocked).
    """
    sent = 0
    waited = False
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    try:
        for block in _blocks(1):
            view = memoryview(block)
            while view:
                try:
                    count = sock.send(view[:chunk])
                except BlockingIOError:
                    if waited and not poller.poll(0):
                        return sent, True
                    # Not writable for poll is not yet full for send: try once more after the wait.
                    waited = not poller.poll(settle * 1000)
                    continue
                waited = False
                view = view[count:]
                sent += count
            if sent >= limit:
                return sent, False
    finally:
        sock.setblocking(True)


def small_buffers(*socks):
    """Fix the buffers small, so that plain TCP blocks after a few hundred KiB whatever the host's tcp_wmem says."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)


def reset(sock):
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, libc.linger(True, 0))
    sock.close()
