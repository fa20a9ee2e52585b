# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""socat: the end of what a client sends comes before the answer to it."""

from __future__ import annotations

import contextlib
import hashlib

from programs.base.files import content, write_files

_CHECK, _ANSWER = 8011, 8012


@contextlib.contextmanager
def serve(place):
    large = write_files(place) / "large"
    answer = place.directory / "answer"
    answer.write_text(f"#!/bin/sh\nsha256sum\nexec cat {large}\n")
    answer.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for port, program in ((_CHECK, "sha256sum"), (_ANSWER, answer)):
            listen = f"TCP-LISTEN:{port},fork,reuseaddr,backlog=64"
            stack.enter_context(place.serving(["socat", listen, f"EXEC:{program},pipes"], port))
        yield place


def _ask(place, port):
    sent = content(place.scaled(8 << 20), 3)
    done = place.run(["socat", "-t", "60", "-", f"TCP:127.0.0.1:{port}"], sent)
    return done.exit, done.err, done.out[:64], hashlib.sha256(done.out).hexdigest()


def test_short_answer(same):
    same(lambda place: _ask(place, _CHECK))


def test_long_answer(same):
    same(lambda place: _ask(place, _ANSWER))
