# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: queries, transactions, COPY in and out, and a base backup."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import time
from pathlib import Path

import pytest

_PORT = 8041
_USER = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
_ROWS = 20_000


def _program(name):
    newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda version: int(version.name))
    return str(newest / "bin" / name)


def _initialise(place, data):
    data.mkdir(mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    place.must([*_USER, _program("initdb"), "--no-sync", "-A", "trust", "-D", str(data)])


def _wait_until_ready(place):
    """It listens before it answers."""
    deadline = time.monotonic() + 60 * place.patience
    while place.run(_client("pg_isready")).exit:
        assert time.monotonic() < deadline, "PostgreSQL does not get ready"
        time.sleep(0.1)


@contextlib.contextmanager
def serve(place):
    data = place.prepared("data", lambda data: _initialise(place, data))
    options = {"port": _PORT, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with place.serving([*_USER, _program("postgres"), "-D", str(data), *words], _PORT, log="postgres"):
        _wait_until_ready(place)
        _must(place, "pgbench", "-i", "-q")
        _sql(place, "CREATE TABLE copied (number int, words text)")
        yield place


def _client(name, *words):
    where = {"PGHOST": "127.0.0.1", "PGPORT": _PORT, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    return ["env", *(f"{name}={value}" for name, value in where.items()), _program(name), *words]


def _must(place, name, *words, give=b""):
    return place.must(_client(name, *words), give)


def _sql(place, command, give=b""):
    return _must(place, "psql", "-X", "-A", "-t", "-c", command, give=give)


def _transactions(place, *words):
    """How many were done, and how many failed."""
    told = _must(place, "pgbench", "-n", "-c", "4", "-t", str(place.scaled(200, 40)), *words).decode()
    return re.findall(r"(?:actually processed|failed transactions): (\S+)", told)


def _select(place):
    return _transactions(place, "-S")


def _tpcb(place):
    """Like TPC-B. All sums of what was moved are the same afterwards."""
    done = _transactions(place)
    sums = [
        _sql(place, f"SELECT sum({column}) FROM {table}")
        for table, column in (
            ("pgbench_accounts", "abalance"),
            ("pgbench_branches", "bbalance"),
            ("pgbench_tellers", "tbalance"),
            ("pgbench_history", "delta"),
        )
    ]
    return done, len(set(sums))


def _copy(place):
    """Out, in again, and out from there."""
    made = f"SELECT n, repeat(md5(n::text), 1 + n % 20) FROM generate_series(1, {place.scaled(_ROWS, 2000)}) n"
    out = _sql(place, f"COPY ({made}) TO STDOUT")
    told = _sql(place, "COPY copied FROM STDIN", give=out)
    again = _sql(place, "COPY (SELECT * FROM copied ORDER BY number) TO STDOUT")
    _sql(place, "TRUNCATE copied")
    return told, len(out), hashlib.sha256(out).hexdigest(), again == out


def _base_backup(place):
    """Its manifest has the checksums."""
    backup = place.directory / "backup"
    _must(place, "pg_basebackup", "-D", str(backup), "-X", "stream", "-c", "fast", "--no-sync")
    done = place.run([_program("pg_verifybackup"), str(backup)])
    shutil.rmtree(backup)
    return done


@pytest.mark.parametrize("work", [_select, _tpcb, _copy, _base_backup])
def test_database(same, work):
    same(work)
