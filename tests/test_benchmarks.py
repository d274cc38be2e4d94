"""The benchmarks run, and refuse a figure for what did not arrive whole. How fast is not tested."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.environments import kinds, requirements, system_names
from benchmarks.report import Measured, number, table
from benchmarks.run import RunFailed, check
from benchmarks.workload import Job, Sink, Stopwatch, expected_checksum, large_payload, small_values

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_case_runs_on_this_project(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    arguments = ["--systems", "lahja_capn,echo", "--events", "20", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())["results"]
    assert [result["system"] for result in results].count("lahja_capn") == 7
    assert [result["case"] for result in results if result["system"] == "echo"] == [
        "request",
        "request, 64 in flight",
    ]
    assert all(result["median"] > 0 and not result["failures"] for result in results)
    assert "1 to 10" in done.stdout


def test_every_system_says_what_it_requires() -> None:
    assert requirements("lahja_capn") == []
    assert requirements("lahja") == ["lahja==0.17.0"]
    assert all(isinstance(requirements(name), list) for name in system_names())


def test_a_system_takes_part_in_every_kind_of_case_unless_it_says_otherwise() -> None:
    assert kinds("lahja_capn") == ["small", "large", "requests"]
    assert kinds("echo") == ["requests"]


def test_a_job_survives_the_way_to_another_process() -> None:
    job = Job("large", "/tmp/x", count=3, consumers=2, index=1, seed=7)
    assert Job.from_json(job.to_json()) == job


def receive(job: Job) -> list[dict[str, float]]:
    """The reports of consumers that get everything."""
    reports = []
    for _ in range(job.consumers):
        sink = Sink(job.count, lambda: None)
        values = small_values(job.seed)
        for index in range(job.count):
            if job.kind == "large":
                sink.large(index, large_payload(job.seed))
            else:
                sink.small(index, *values[index % len(values)])
        reports.append(sink.facts())
    return reports


@pytest.mark.parametrize("kind", ["small", "large"])
def test_consumers_that_got_everything_pass(kind: str) -> None:
    job = Job(kind, "", count=5, consumers=2)
    check(job, receive(job))


@pytest.mark.parametrize(
    "damage", [{"received": 4}, {"out_of_order": 1}, {"checksum": 1.0}], ids=lambda damage: next(iter(damage))
)
def test_a_consumer_that_lost_something_makes_the_run_fail(damage: dict[str, float]) -> None:
    job = Job("small", "", count=5, consumers=2)
    reports = receive(job)
    reports[1] |= damage
    with pytest.raises(RunFailed):
        check(job, reports)


def test_a_sink_notes_the_time_and_calls_back_when_the_last_event_has_come() -> None:
    calls: list[str] = []
    sink = Sink(2, lambda: calls.append("full"))
    sink.small(0, 0.5, b"x", "t", True)
    assert not calls
    assert sink.last == 0
    sink.small(1, 0.5, b"x", "t", True)
    assert calls == ["full"]
    assert sink.last > 0


def test_a_sink_notices_events_that_come_out_of_order() -> None:
    sink = Sink(2, lambda: None)
    sink.small(1, 0.5, b"x", "t", True)
    assert sink.out_of_order == 1


def test_the_checksum_depends_on_the_seed_and_the_count() -> None:
    job = Job("small", "", count=5, consumers=1)
    assert not math.isclose(expected_checksum(job), expected_checksum(replace(job, seed=2)))
    assert not math.isclose(expected_checksum(job), expected_checksum(replace(job, count=6)))


def test_a_stopwatch_counts_requests_and_sorts_their_times() -> None:
    stopwatch = Stopwatch()
    for began in [stopwatch.start() for _ in range(4)]:
        stopwatch.stop(began)
    facts = stopwatch.facts()
    assert facts["received"] == 4
    assert 0 <= facts["p50"] <= facts["p99"] <= facts["seconds"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.2345, "1.23"), (123.4, "123"), (1234.5, "1,230"), (98765.4, "98,800"), (1234567.0, "1,230,000")],
)
def test_numbers_show_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_table_shows_medians_spread_and_ratios() -> None:
    slow = Measured("c", "lahja", 10, rates=[100.0, 200.0, 300.0])
    fast = Measured("c", "other", 10, rates=[500.0], p50=[0.0001], p99=[0.0002])
    broken = Measured("c", "broken", 10, failures=["why"])
    lines = table([slow, fast, broken], "lahja", {"c": "events/s"}).splitlines()
    assert lines[2].split() == ["c,", "events/s", "lahja", "200", "100", "300", "1.00"]
    assert lines[3].split() == ["other", "500", "500", "500", "100", "200", "2.50"]
    assert lines[4].split() == ["broken", "failed"]
