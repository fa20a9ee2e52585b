# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus itself reads the metrics and the alert rules; rules and dashboard name only metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, reasons
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import counters

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "monitoring"
COUNTS = {reason.label: layout.Count(3, 4096) for reason in reasons.DESCRIPTIONS if reason}
METRICS = "\n".join(counters.prometheus(COUNTS, used=10, budget=100, below=5)) + "\n"
#: Of the node exporter.
OTHERS = {"node_textfile_mtime_seconds"}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")


def expressions():
    found = re.findall(r"^ +expr: (.+)$", (EXAMPLES / "alerts.yml").read_text(encoding="utf-8"), re.MULTILINE)
    board = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    return found + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_reason_exists(expression):
    known = set(re.findall(r"^# TYPE (\S+)", METRICS, re.MULTILINE)) | OTHERS
    named = set(re.findall(r"\b(?:sockredir|node)_[a-z_]+(?=[{ ])", expression))
    assert named
    assert named <= known
    for reason in re.findall(r'reason="([a-z_]+)"', expression):
        assert reason in COUNTS


def test_the_panels_of_the_dashboard_have_each_a_place_of_its_own():
    panels = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    fields = [(p["gridPos"]["x"] + x, p["gridPos"]["y"] + y) for p in panels for x in range(12) for y in range(8)]
    assert len(set(fields)) == len(fields)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_grafana_knows_every_field_of_the_dashboard():
    """Its own types read the dashboard and write it again; what they do not know is lost on the way."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="not installed")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    board = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
    read = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(board)))
    assert list(lost(board, read)) == []
    board["panels"][0]["grid"] = board["panels"][0].pop("gridPos")
    read = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(board)))
    assert list(lost(board, read)) == ["/panels/0/grid"]


def lost(before, after, path=""):
    """What of a value is not, or not the same, in another that may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}/{number}")
    elif before != after:
        yield path


@promtool
def test_prometheus_reads_the_metrics():
    done = subprocess.run(["promtool", "check", "metrics"], input=METRICS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@promtool
def test_alerts_fire_for_their_trouble_and_not_without():
    rules = ["promtool", "test", "rules", str(EXAMPLES / "alerts_test.yml")]
    done = subprocess.run(rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
