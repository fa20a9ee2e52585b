# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's own programs: what checks its links, and what draws the benchmark's chart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "scripts" / "site"
PAGE = '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">up</a><a href="https://example.com/">away</a>'


def run(program, *arguments):
    return subprocess.run([sys.executable, SITE / program, *arguments], capture_output=True, text=True, check=False)


def test_what_a_program_printed_as_a_picture(tmp_path):
    picture = tmp_path / "screen.svg"
    drawn = draw_terminal("$ x --y", "PORT  <b>&\n\n5432\tok\n", picture)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    texts = [(each.text, each.get("y")) for each in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [("$ x --y", "24"), ("PORT  <b>&", "46"), ("5432    ok", "78")]


@pytest.mark.parametrize(
    ("printed", "reason"), [("\n", "nothing was printed"), ("\x1b[31mred", "print without colours")]
)
def test_what_cannot_be_drawn_is_refused(tmp_path, printed, reason):
    picture = tmp_path / "screen.svg"
    drawn = draw_terminal("$ x", printed, picture)
    assert drawn.returncode != 0
    assert reason in drawn.stderr
    assert not picture.exists()


def draw_terminal(title, printed, picture):
    command = [sys.executable, SITE / "terminal.py", title, picture]
    return subprocess.run(command, input=printed, capture_output=True, text=True, check=False)


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there"><a href="a.html">a</a></p>', encoding="utf-8")
    return tmp_path


def test_links_that_lead_somewhere(pages):
    done = run("links.py", pages)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ('<a href="c.html">c</a>', "c.html: no such file"),
        ('<img src="c.svg">', "c.svg: no such file"),
        ('<a href="b.html#here">b</a>', "b.html#here: no such section"),
        ('<a href="#here">here</a>', "#here: no such section"),
    ],
)
def test_a_link_that_leads_nowhere(pages, tag, reason):
    (pages / "a.html").write_text(PAGE + tag, encoding="utf-8")
    done = run("links.py", pages)
    assert done.returncode == 1
    assert done.stdout == f"{pages / 'a.html'}: {reason}\n"


def test_a_site_without_pages(tmp_path):
    assert run("links.py", tmp_path).returncode == 1


TABLE = """
| work | figure | plain pair | sockredir | Unix sockets |
|---|---|---|---|---|
| one way 64 B | throughput | 0.27 (0.25-0.27) | 1.07 (1.01-1.09) | 0.87 (0.83-0.88) |
| a & b | p50 |  | 0.50 (0.40-0.60) |  |
"""


def test_the_chart_shows_each_ratio_of_the_table(tmp_path):
    (tmp_path / "table.md").write_text(TABLE, encoding="utf-8")
    assert run("chart.py", tmp_path / "table.md", tmp_path / "chart.svg").returncode == 0
    chart = ElementTree.parse(tmp_path / "chart.svg").getroot()
    words = [element.text for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one way 64 B, throughput", "a & b, p50"} <= set(words)
    marks = chart.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(marks) == 3 + 3 + 1  # legend, and the two rows


def test_a_page_without_a_table(tmp_path):
    (tmp_path / "table.md").write_text("nothing", encoding="utf-8")
    done = run("chart.py", tmp_path / "table.md", tmp_path / "chart.svg")
    assert (done.returncode, done.stderr) == (1, "chart: no table of ratios\n")
