# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a fleet's advice in a real browser: ports sort, filter and fold."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.fleet_advice import advise
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.advice import to_page

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from browser.test_page import browser, find, header, names, pytestmark, shown, sort
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

__all__ = ["browser", "pytestmark"]
HOSTILE = "<img src=x onerror=alert(1)>"


def port(number, verdict, size, program="redis-server", reasons=()):
    return {
        "port": number,
        "verdict": verdict,
        "reasons": list(reasons),
        "programs": [program],
        "connections": 3,
        "bytes": size,
        "passing": False,
        "why": f"because of {program}",
        "gain": 1.25 if verdict == "accelerate" else None,
    }


def fleet():
    """Fifty hosts, of which one could not learn."""
    ports = [
        port(6379, "accelerate", 1 << 20),
        port(443, "no-gain", 99),
        port(21, "leave", 5000, HOSTILE, ["urgent-data"]),
    ]
    results = {f"web{number}": {"report": {"ports": ports, "variables": {}}} for number in range(49)}
    return advise({**results, "lost": {"unreachable": True, "msg": "no route"}}, {})


@pytest.fixture
def page(browser, tmp_path):
    path = tmp_path / "advice.html"
    path.write_text(to_page(fleet()), encoding="utf-8")
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_all_ports_those_with_most_bytes_first(page):
    assert page.title == "sockredir advice"
    assert (names(page), shown(page)) == (["6379", "21", "443"], "3 of 3 ports")
    assert [tile.text for tile in page.find_elements(By.CLASS_NAME, "tile")] == [
        "1\nports: leave",
        "1\nports: accelerate",
        "1\nports: no-gain",
    ]


def test_it_sorts_filters_and_folds(page):
    assert sort(page, "port") == "ascending"
    assert names(page) == ["21", "443", "6379"]
    assert header(page, "bytes").get_attribute("aria-sort") is None
    Select(page.find_element(By.ID, "reason")).select_by_visible_text("urgent-data")
    assert (names(page), shown(page)) == (["21"], "1 of 3 ports")
    Select(page.find_element(By.ID, "reason")).select_by_visible_text("all")
    page.find_element(By.CSS_SELECTOR, ".tile.accelerate").click()
    assert names(page) == ["6379"]
    detail = page.find_element(By.CSS_SELECTOR, "tbody:not([hidden]) .detail")
    assert not detail.is_displayed()
    page.find_element(By.CSS_SELECTOR, "tbody:not([hidden]) .fold").click()
    assert detail.is_displayed()
    assert "web0, web1" in detail.text


def test_hosts_that_could_not_learn_and_what_hosts_say_is_text(page):
    assert "no route" in page.find_element(By.CSS_SELECTOR, "main > .card").text
    find(page, "onerror")
    assert names(page) == ["21"]
    assert page.find_elements(By.TAG_NAME, "img") == []
