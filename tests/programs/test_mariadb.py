# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB: statements, large rows, a dump, and clients side by side."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

_PORT = 8051
_SMALL = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0"]


def _install(place, data):
    words = ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]
    place.must(["mariadb-install-db", *words, f"--datadir={data}", _SMALL[0]], wait=120)


@contextlib.contextmanager
def serve(place):
    data = place.prepared("data", lambda data: _install(place, data))
    words = ["--no-defaults", "--user=root", f"--datadir={data}", f"--socket={place.directory}/socket", *_SMALL]
    with place.serving(["mariadbd", *words, f"--port={_PORT}", "--bind-address=127.0.0.1"], _PORT):
        yield place


def _client(name, *words):
    where = ["--protocol=tcp", "--host=127.0.0.1", f"--port={_PORT}", "--user=root", "--skip-ssl"]
    return [name, "--no-defaults", *where, *words]


def _sql(place, text):
    return place.must(_client("mariadb", "--batch", "--max-allowed-packet=64M"), text.encode())


def _statements(place):
    """Many small ones, then what they have made as a dump."""
    rows = "".join(f"INSERT INTO t VALUES ({n}, REPEAT('{n} ', {n % 50}));\n" for n in range(place.scaled(1000, 200)))
    table = "CREATE DATABASE d; USE d; CREATE TABLE t (number INT PRIMARY KEY, words TEXT);\n"
    told = _sql(place, f"{table}{rows}SELECT COUNT(*), SUM(number) FROM t; CHECKSUM TABLE t;")
    dump = place.must(_client("mariadb-dump", "--skip-dump-date", "--skip-comments", "d"))
    _sql(place, "DROP DATABASE d")
    return told, hashlib.sha256(dump).hexdigest()


def _large_rows(place):
    count = place.scaled(100, 10)
    rows = _sql(place, f"SELECT help_topic_id, REPEAT(MD5(help_topic_id), 3000) FROM mysql.help_topic LIMIT {count}")
    return len(rows), hashlib.sha256(rows).hexdigest()


def _many_clients(place):
    """The tool tells times only; how it ends is what counts."""
    words = ["--auto-generate-sql", "--concurrency=4", "--auto-generate-sql-unique-query-number=10"]
    done = place.run(_client("mariadb-slap", *words, f"--number-of-queries={place.scaled(800, 100)}"))
    return done.exit, done.err


@pytest.mark.parametrize("work", [_statements, _large_rows, _many_clients])
def test_database(same, work):
    same(work)
