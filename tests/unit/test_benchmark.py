# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark: ratios, columns, files of figures; what it reads out of what other programs print; its works."""

import pytest
from bench import proxies, report, servers, traffic
from bench.measure import Plan
from bench.names import ACCELERATED, OBSERVE, OURS, PLAIN, REDIRECT, TCP, UNIX
from bench.works import GROUPS, all_works

HOST = {"kernel": "6.1.0", "machine": "x86_64", "cpus": 2}


def result(values, work="stream-64", better="higher", **more):
    own = {"work": work, "title": f"title of {work}", "metric": "throughput", "better": better, "unit": "MB/s"}
    return {**own, "values": values, "ratios": report.ratios(values), **more}


def columns(results):
    """Titles of the table's columns, and the cells of each line below, by words that two spaces separate."""
    head, _rule, *lines = report.table(results).splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in (head, *lines)]


def test_ratios_are_paired_by_repetition():
    # The machine became four times as fast midway: pairs do not notice.
    found = report.ratios({TCP: [10, 10, 40, 40, 40], OURS: [20, 30, 80, 120, 100]})
    assert found == {OURS: {"low": 2, "median": 2.5, "high": 3}}


def test_quartiles_of_few_are_the_extremes():
    assert report.quartiles([1, 2, 9]) == (1, 2, 9)
    assert report.quartiles([1, 2, 3, 4, 100]) == (2, 3, 4)


@pytest.mark.parametrize(("better", "median"), [("higher", 3), ("lower", 2)])
def test_the_best_of_both_is_the_one_with_the_better_median(better, median):
    values = {TCP: [1, 1, 1], PLAIN: [2, 2, 9], UNIX: [1, 3, 4], OURS: [9, 9, 9]}
    assert report.best(result(values, better=better))["median"] == median


@pytest.mark.parametrize("missing", [PLAIN, UNIX])
def test_without_both_there_is_no_best(missing):
    values = {TCP: [1], PLAIN: [2], UNIX: [3]}
    del values[missing]
    assert report.best(result(values)) is None


def test_a_table_has_the_columns_that_were_measured():
    head, line = columns([result({TCP: [1000, 1000], OURS: [1500, 1700]})])
    assert head == ["work", "figure", "TCP", OURS]
    assert line == ["title of stream-64", "throughput +", "1,000 MB/s", "1.60 (1.50-1.70)"]
    values = {TCP: [1], PLAIN: [2], UNIX: [3], OURS: [4], OBSERVE: [5]}
    head, line, other = columns([result(values), result({TCP: [1], OURS: [2]}, "iperf3")])
    assert head == ["work", "figure", "TCP", PLAIN, UNIX, OURS, OBSERVE, "best of pair, Unix"]
    assert line[3:] == ["2.00 (2.00-2.00)", "3.00 (3.00-3.00)", "4.00 (4.00-4.00)", "5.00 (5.00-5.00)", line[4]]
    assert other[3:] == ["-", "-", "2.00 (2.00-2.00)", "-", "-"]


def test_who_failed_is_said():
    head, line = columns([result({TCP: [1], OURS: [2]}, failed={PLAIN: "time-out"})])
    assert head[3:] == [PLAIN, OURS] and line[3:] == ["failed", "2.00 (2.00-2.00)"]
    _head, line = columns([result({}, failed={TCP: "time-out"}), result({TCP: [1], OURS: [2]}, "other")])[:2]
    assert line[2:] == ["failed", "-"]


def test_what_was_measured_apart_is_one_row():
    results = [result({TCP: [10], OURS: [20]}), result({TCP: [100], OBSERVE: [90]})]
    (row,) = report.rows(results)
    assert {name: ratio["median"] for name, ratio in row["ratios"].items()} == {OURS: 2, OBSERVE: 0.9}
    assert results[0]["ratios"].keys() == {OURS}, "nothing has changed in what goes to the file"


def test_another_condition_is_another_row():
    results = [result({TCP: [1], OURS: [2]}), result({TCP: [1], OURS: [3]}, condition="one CPU")]
    assert [report.title(row) for row in report.rows(results)] == ["title of stream-64", "title of stream-64 [one CPU]"]


def test_a_file_of_figures_is_brought_up_to_date():
    old = result({TCP: [1], OURS: [2]})
    observed = result({TCP: [1], OBSERVE: [1]}, condition="")
    one_cpu = result({TCP: [1], OURS: [5]}, condition="one CPU")
    other = result({TCP: [1], OURS: [7]}, "rr-64")
    unknown = result({TCP: [1], OURS: [7]}, "gone")
    new = result({TCP: [1], OURS: [3], UNIX: [1]}, condition="")
    order = ["rr-64", "stream-64"]
    assert report.updated([old, observed, one_cpu, other, unknown], [new], order) == [other, observed, new, one_cpu]


def test_a_file_of_version_1_is_still_read():
    document = {"host": HOST, "repeats": 3, "seconds": 0.5, "results": [result({TCP: [1] * 3, OURS: [2] * 3})]}
    assert report.text(document).startswith("Linux 6.1.0, 2 CPUs; 3 paired runs of 0.5 s.\n")


def test_the_machine_and_the_runs_are_said():
    host = {**HOST, "cpu": "Model 1", "congestion_control": "cubic"}
    results = [result({TCP: [1] * count, OURS: [2] * count}, seconds=0.5) for count in (7, 3)]
    document = {"host": host, "repeats": 3, "seconds": 0.5, "results": results}
    assert report.text(document).startswith(
        "Linux 6.1.0, 2 CPUs (Model 1), congestion control cubic; 3 to 7 paired runs of 0.5 s.\n"
    )


def test_works_are_told_apart_and_belong_to_a_set():
    works = all_works()
    assert len({work.id for work in works}) == len({work.title for work in works}) == len(works)
    assert {work.group for work in works} == set(GROUPS)
    assert all({TCP, OURS, OBSERVE} <= set(work.subjects) for work in works if work.base == TCP)
    assert all({REDIRECT, ACCELERATED, TCP} <= set(work.subjects) for work in works if work.base != TCP)


def test_a_plan_chooses_subjects_that_make_sense():
    (nginx,) = [work for work in all_works() if work.id == "nginx-128"]
    assert Plan([OBSERVE, UNIX], 1, 1).names(nginx) == [TCP, OBSERVE]
    assert Plan([UNIX], 1, 1).names(nginx) == [], "nothing would be compared"


def test_a_plan_names_its_condition():
    assert Plan([], 1, 1).condition == ""
    assert Plan([], 1, 1, one_cpu=True, busy=True).condition == "one CPU, two busy loops"


def test_ways_to_a_proxy_have_a_table_of_their_own():
    proxied = {**result({REDIRECT: [10, 10], ACCELERATED: [15, 17], TCP: [20, 20]}, "haproxy-redis"), "base": REDIRECT}
    proxied["ratios"] = report.ratios(proxied["values"], REDIRECT)
    plain = result({TCP: [1], OURS: [2]})
    assert report.table([plain, proxied]) == report.table([plain])
    head, _line, row = report.table([plain, proxied], REDIRECT).splitlines()
    assert head.split() == ["work", "figure", *REDIRECT.split(), *ACCELERATED.split(), "no", "proxy"]
    assert row.split()[-4:] == ["1.60", "(1.50-1.70)", "2.00", "(2.00-2.00)"]


def test_wrk_names_its_median():
    assert proxies.median("  Latency Distribution\n     50%   34.00us\n     75%  1.20ms\n") == 34
    assert proxies.median("     50%    1.50ms\n") == 1500
    with pytest.raises(ValueError):
        proxies.median("     75%    1.50ms\n")


def test_iperf3_is_what_arrived_both_ways():
    end = {"sum_received": {"bits_per_second": 8e6}, "sum_sent": {"bits_per_second": 9e9}}
    assert traffic.received({"end": end}) == 1
    assert traffic.received({"end": {**end, "sum_received_bidir_reverse": {"bits_per_second": 16e6}}}) == 3
    with pytest.raises(ValueError, match="iperf3: unable to receive"):
        traffic.received({"end": {}, "error": "unable to receive"})


def test_sockperf_gives_half_of_a_round_trip():
    output = "sockperf: ---> percentile 99.000 =   10.500\nsockperf: ---> percentile 50.000 =    5.250\n"
    assert traffic.percentiles(output) == {"p50_us": 10.5, "p99_us": 21}
    with pytest.raises(ValueError):
        traffic.percentiles("sockperf: ---> percentile 99.000 = 10")


WRK = """\
Running 1s test @ http://127.0.0.1:1/128
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    90.02us   10.11us   1.05ms   91.00%
  40000 requests in 1.00s, 14.00MB read
Requests/sec:  39998.50
Transfer/sec:     14.00MB
"""


def test_wrk_says_requests_a_second():
    assert servers.requests(WRK) == 39998.5


@pytest.mark.parametrize(
    "trouble", ["  Socket errors: connect 0, read 0, write 0, timeout 3", "  Non-2xx or 3xx responses: 40000"]
)
def test_failed_requests_are_no_figure(trouble):
    with pytest.raises(ValueError, match=trouble.strip()):
        servers.requests(WRK.replace("Requests/sec", f"{trouble}\nRequests/sec"))


def test_pgbench_says_transactions_a_second():
    done = (
        "number of failed transactions: 0 (0.000%)\ninitial connection time = 5.0 ms\ntps = 20000.25 (without initial"
    )
    assert servers.transactions(done) == 20000.25
    assert servers.transactions("tps = 1.0 (including conn\ntps = 2.5 (excluding conn") == 2.5
    with pytest.raises(ValueError, match=r"pgbench: failed transactions: 2 \(0.1%\)"):
        servers.transactions(done.replace("0 (0.000%)", "2 (0.1%)"))
    with pytest.raises(ValueError):
        servers.transactions("pgbench: error: connection lost")
