# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From redirection to TCP and back: every byte in order, and each rule of order.h needed for that."""

from __future__ import annotations

import os
import random
import shutil
import threading

import pytest
from support.datapath import SOURCE, read_exactly

MIB = 1 << 20
WINDOW = 2 * MIB
SMALL_BUDGET = 64 << 10
#: What a stream consists of, again and again; nothing comes so late that it could pass for the next turn's.
TURN = os.urandom(64 * MIB)
TWO_TURNS = TURN * 2


def part(begin: int, size: int) -> bytes:
    begin %= len(TURN)
    return TWO_TURNS[begin : begin + size]


class Stream:
    """One direction of a connection; writer and reader know which bytes come next."""

    def __init__(self, writer, reader) -> None:
        self.writer, self.reader = writer, reader
        self.sent = self.read = 0

    def send(self, size: int) -> None:
        self.writer.sendall(part(self.sent, size))
        self.sent += size

    def fill(self, size: int = 65536) -> None:
        """Send until that would block. The kernel keeps TCP's verdict for the next message, too."""
        self.writer.setblocking(False)
        try:
            while True:
                self.sent += self.writer.send(part(self.sent, size))
        except BlockingIOError:
            self.writer.settimeout(20)

    def take(self, size: int) -> None:
        while size:
            now = min(size, MIB)
            assert read_exactly(self.reader, now) == part(self.read, now), f"wrong bytes after {self.read}"
            self.read += now
            size -= now

    def take_all(self) -> None:
        self.take(self.sent - self.read)


def state(lab, server) -> str:
    return lab.redirection.flow(server.getsockname()[1])[0].state


def test_redirection_comes_back_when_the_reader_has_caught_up(lab):
    client, server = lab.pair()
    stream = Stream(client, server)
    for _turn in range(5):
        stream.fill()
        assert state(lab, server) in ("ahead", "behind")
        stream.take_all()
        stream.send(1000)
        stream.take_all()
        stream.send(1000)
        assert state(lab, server) == "redirected"
    stream.take_all()
    assert lab.redirection.events("ahead") >= 5


def test_what_tcp_has_not_delivered_is_not_overtaken(lab):
    assert not_delivered(lab) == "behind"


def test_what_nobody_has_accepted_yet_is_not_overtaken(lab):
    """By TCP it lies in the socket's own queue, which a redirect does not append to."""
    not_accepted(lab)


def not_accepted(lab):
    listener = lab.listener()
    client = lab.connect(listener)
    lab.redirection.set(budget=SMALL_BUDGET)
    stream = Stream(client, None)
    stream.send(40_000)
    stream.send(30_000)
    assert state(lab, listener) == "over_budget"
    lab.redirection.set()
    stream.send(1000)
    assert state(lab, listener) in ("behind", "redirected")
    stream.reader = lab.keep(listener.accept()[0])
    stream.take_all()
    stream.send(1000)
    assert state(lab, listener) == "redirected"
    stream.take_all()


def not_delivered(lab):
    """Redirected bytes fill the reader's buffer, so its window is closed to those that follow by TCP."""
    client, server = lab.pair()
    stream = Stream(client, server)
    for _turn in range(3 * WINDOW // 2 // 65536):
        stream.send(65536)
    stream.take(100_000)
    stream.send(1000)
    met = state(lab, server)
    stream.take_all()
    return met


@pytest.mark.parametrize(
    ("rule", "instead", "scene"),
    [
        ("expects(peer) != tp->write_seq", "expects(peer) == 0", not_delivered),
        ("!not_yet_queued(peer) && ", "", not_accepted),
    ],
    ids=["delivered", "queued"],
)
def test_bytes_overtake_others_without_a_rule(lab_with, tmp_path, rule, instead, scene):
    """Shows that the tests above look at the rules."""
    source = tmp_path / "without"
    shutil.copytree(SOURCE.parent, source)
    header = source / "order.h"
    text = header.read_text()
    assert rule in text.partition("all_queued(")[2]
    before, name, rest = text.partition("all_queued(")
    header.write_text(before + name + rest.replace(rule, instead, 1))
    with lab_with(source=source / SOURCE.name) as lab, pytest.raises(AssertionError, match="wrong bytes"):
        scene(lab)


def test_a_message_over_the_budget_is_no_reason_to_stay_away(lab):
    lab.redirection.set(budget=SMALL_BUDGET)
    client, server = lab.pair()
    stream = Stream(client, server)
    stream.send(100_000)
    assert state(lab, server) == "over_budget"
    stream.take_all()
    stream.send(10_000)
    assert state(lab, server) == "redirected"
    stream.take_all()


def work(stream: Stream, seed: int, problems: list) -> None:
    """Write and read at the same time, at changing speeds."""
    source = random.Random(seed)
    total = source.randint(8 * MIB, 24 * MIB)

    def write():
        while stream.sent < total:
            stream.send(min(source.choice((100, 4000, 65536, 200_000, 700_000)), total - stream.sent))

    writer = threading.Thread(target=write)
    writer.start()
    pauses = random.Random(seed + 1)
    try:
        while stream.read < total:
            if pauses.random() < 0.02:
                threading.Event().wait(0.03)
            stream.take(min(pauses.randint(1, 300_000), total - stream.read))
    except (OSError, AssertionError) as error:
        problems.append(f"seed {seed}: {error!r}")
    writer.join(60)


def test_many_switches_under_load(lab):
    lab.redirection.set(demote_below=0)
    problems: list = []
    for turn in range(3):
        pairs = [lab.pair() for _each in range(8)]
        workers = [
            threading.Thread(target=work, args=(Stream(*pair[:: 1 - 2 * (index % 2)]), turn * 100 + index, problems))
            for index, pair in enumerate(pairs)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        for client, server in pairs:
            client.close()
            server.close()
    assert not problems
    counters = lab.redirection.counters()
    assert counters["ahead"].events > 0
    assert counters["behind"].events > 0
    lab.redirection.wait_until_empty()
