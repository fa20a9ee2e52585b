# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes each task result as one line of JSON to the file that SOCKREDIR_TEST_RECORD names."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: Writes task results to a file
description: For the collection's own tests.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.started = {}

    def v2_runner_on_start(self, host, task):
        self.started[(host.name, task._uuid)] = time.monotonic()

    def _write(self, status, result):
        task = result._task
        began = self.started.get((result._host.name, task._uuid), time.monotonic())
        line = {
            "host": result._host.name,
            "task": task.name,
            "action": task.action,
            "status": status,
            "seconds": round(time.monotonic() - began, 3),
            "result": json.loads(self._dump_results(result._result, indent=0, keep_invocation=False)),
        }
        with open(os.environ["SOCKREDIR_TEST_RECORD"], "a", encoding="utf-8") as record:
            record.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result):
        self._write("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result):
        self._write("unreachable", result)

    def v2_runner_on_skipped(self, result):
        self._write("skipped", result)
