# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's page in a real browser: opens, sorts, filters, folds, and nothing in it comes alive."""

from __future__ import annotations

import shutil

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.page import to_page
from support.fleet_samples import HOSTILE, fleet, hostile_fleet, report_of

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs the packages chromium and chromium-driver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser, tmp_path):
    def opened(hosts):
        path = tmp_path / "report.html"
        path.write_text(to_page(report_of(hosts)), encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def names(driver):
    script = """return Array.from(document.querySelectorAll('#hosts > tbody:not([hidden]) > .row > th'),
                                 cell => cell.textContent)"""
    return driver.execute_script(script)


def header(driver, column):
    return driver.find_element(By.CSS_SELECTOR, f"#hosts > thead [data-column={column}]")


def sort(driver, column):
    header(driver, column).find_element(By.TAG_NAME, "button").click()
    return header(driver, column).get_attribute("aria-sort")


def find(driver, words):
    field = driver.find_element(By.ID, "find")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE, words)


def shown(driver):
    return driver.find_element(By.ID, "shown").text


def test_a_thousand_hosts_worst_first(open_page):
    driver = open_page(fleet(1000))
    assert driver.title == "sockredir audit"
    assert shown(driver) == "1,000 of 1,000 hosts"
    assert names(driver)[:2] == ["web13.example.com", "web33.example.com"]
    assert len(names(driver)) == 1000
    tiles = [tile.text for tile in driver.find_elements(By.CLASS_NAME, "tile")]
    assert tiles == [
        "50\nfailed",
        "50\nunreachable",
        "100\ndrifted",
        "50\nunsupported",
        "50\nnot enabled",
        "700\ncompliant",
    ]


def test_sorts_text_naturally_and_numbers_as_numbers(open_page):
    driver = open_page(fleet(1000))
    by_name = [f"web{number}.example.com" for number in range(1000)]
    assert sort(driver, "host") == "ascending"
    assert names(driver) == by_name
    assert sort(driver, "host") == "descending"
    assert names(driver) == by_name[::-1]
    assert sort(driver, "redirected") == "ascending"
    assert header(driver, "host").get_attribute("aria-sort") is None
    assert sort(driver, "redirected") == "descending"
    assert names(driver)[:3] == ["web999.example.com", "web998.example.com", "web997.example.com"]


def test_filters_by_words_status_kernel_and_tile(open_page):
    driver = open_page(fleet(1000))
    find(driver, "WEB99 example")
    assert shown(driver) == "11 of 1,000 hosts"
    find(driver, "no such host")
    assert names(driver) == []
    assert driver.find_element(By.ID, "none").is_displayed()
    find(driver, "settings_changed")
    assert shown(driver) == "100 of 1,000 hosts"
    Select(driver.find_element(By.ID, "kernel")).select_by_visible_text("6.12.41+deb13-amd64")
    assert shown(driver) == "50 of 1,000 hosts"
    find(driver, "")
    assert shown(driver) == "200 of 1,000 hosts"
    Select(driver.find_element(By.ID, "kernel")).select_by_visible_text("all")
    tile = driver.find_element(By.CSS_SELECTOR, ".tile.unreachable")
    tile.click()
    assert tile.get_attribute("aria-pressed") == "true"
    assert shown(driver) == "50 of 1,000 hosts"
    assert names(driver)[0] == "web11.example.com"
    Select(driver.find_element(By.ID, "status")).select_by_value("not_enabled")
    assert tile.get_attribute("aria-pressed") == "false"
    assert names(driver)[0] == "web5.example.com"


def test_sorting_keeps_the_filter_and_details_stay_with_their_host(open_page):
    driver = open_page(fleet(100))
    find(driver, "settings_changed")
    sort(driver, "host")
    assert names(driver)[:3] == ["web3.example.com", "web9.example.com", "web23.example.com"]
    fold = driver.find_element(By.CSS_SELECTOR, "#hosts > tbody:not([hidden]) .fold")
    detail = fold.find_element(By.XPATH, "ancestor::tbody//*[@class='detail']")
    assert not detail.is_displayed()
    fold.click()
    assert fold.get_attribute("aria-expanded") == "true"
    assert detail.is_displayed()
    assert '{"mode": "observe"}' in detail.text
    assert '{"mode": "enforce"}' in detail.text
    fold.click()
    assert not detail.is_displayed()


def test_all_details_at_once(open_page):
    driver = open_page(fleet(20))
    details = driver.find_elements(By.CLASS_NAME, "detail")
    assert details
    driver.find_element(By.ID, "unfold").click()
    assert all(detail.is_displayed() for detail in details)
    driver.find_element(By.ID, "unfold").click()
    assert not any(detail.is_displayed() for detail in details)


def test_hostile_text_is_only_text(open_page):
    hosts = hostile_fleet()
    driver = open_page(hosts)
    driver.find_element(By.ID, "unfold").click()
    assert driver.title == "sockredir audit"
    elements = driver.execute_script("return Array.from(document.querySelectorAll('body *'), e => e.localName)")
    assert {"img", "textarea", "iframe"}.isdisjoint(elements)
    assert elements.count("script") == 1
    assert len(names(driver)) == len(hosts)
    page = driver.find_element(By.TAG_NAME, "body").text
    for bad in (HOSTILE[0], HOSTILE[2], HOSTILE[3]):
        assert bad in page
    find(driver, "onload=document")
    assert len(names(driver)) == 4
    sort(driver, "summary")
    assert driver.title == "sockredir audit"


def test_no_host_at_all(open_page):
    driver = open_page([])
    assert shown(driver) == "0 of 0 hosts"
    sort(driver, "status")
    assert names(driver) == []


def test_readable_without_script(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(to_page(report_of(fleet(20))), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        details = browser.find_elements(By.CLASS_NAME, "detail")
        assert len(browser.find_elements(By.CLASS_NAME, "row")) == 20
        assert details
        assert all(detail.is_displayed() for detail in details)
        assert not browser.find_element(By.CLASS_NAME, "tools").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
