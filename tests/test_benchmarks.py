"""The benchmarks run, and refuse a figure for what did not arrive whole. How fast is not tested."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import environments, growth, guard
from benchmarks.bench import Bench, Plan, Prepared
from benchmarks.cases import CASES
from benchmarks.environments import Unavailable, kinds, programs, python_for, requirements, system_names
from benchmarks.processes import Process, RunFailed, check
from benchmarks.report import Measured, number, table
from benchmarks.workload import (
    KINDS,
    SOURCE_SHIFT,
    TICK_S,
    Job,
    Sink,
    Stopwatch,
    bursts,
    expected_checksum,
    large_payload,
    percentiles,
    small_values,
)
from tests.unmeasured import environment

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_case_runs_on_this_project(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    arguments = [
        "--systems",
        "lahja_capn,echo,sockets",
        "--events",
        "10",
        "--rounds",
        "1",
        "--json",
        str(out),
        "--no-plots",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())["results"]
    assert [one["case"] for one in results if one["system"] == "lahja_capn"] == [case.name for case in CASES]
    assert [one["case"] for one in results if one["system"] == "echo"] == [
        "request",
        "request, 64 in flight",
    ]
    large = [one["case"] for one in results if one["system"] == "sockets"]
    assert large == [case.name for case in CASES if case.kind == "large"]
    assert all(one["values"] and not one["failures"] for one in results)
    assert all(
        one["p50"] and one["p999"] for one in results if one["case"].startswith(("request", "latency"))
    )
    assert "1 to 10" in done.stdout


def test_every_system_says_what_it_requires() -> None:
    assert requirements("lahja_capn") == []
    assert requirements("lahja") == ["lahja==0.17.0"]
    assert all(isinstance(requirements(name), list) for name in system_names())


def test_a_system_takes_part_in_every_kind_of_case_unless_it_says_otherwise() -> None:
    assert kinds("lahja_capn") == list(KINDS)
    assert kinds("echo") == ["requests"]
    assert kinds("sockets") == ["large"]
    assert set().union(*map(kinds, system_names())) == set(KINDS)


def test_the_cases_that_a_system_names_exist() -> None:
    named = {name for system in system_names() for name in environments.cases(system) or []}
    assert "request" in named
    assert named <= {case.name for case in CASES}


def test_a_system_whose_program_is_missing_is_skipped_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert programs("nats") == ["nats-server"]
    monkeypatch.setattr(environments, "search_path", lambda: "/nonexistent")
    with pytest.raises(Unavailable, match="apt-get install nats-server"):
        python_for("nats")
    prepared = Prepared.of(["nats", "lahja_capn"])
    assert list(prepared.pythons) == ["lahja_capn"]
    assert "apt-get" in prepared.skipped["nats"]


def test_processes_may_keep_what_they_compile_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, short_tmp_path: Path
) -> None:
    given: list[dict[str, str]] = []

    async def start(*command: str, env: dict[str, str], **others: object) -> None:
        given.append(env)
        raise RunFailed("enough")

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    python = Path(sys.executable)
    with pytest.raises(RunFailed):
        asyncio.run(Process.start(python, "lahja_capn", "consume", Job("start", str(short_tmp_path), 1, 1)))
    with pytest.raises(RunFailed):
        asyncio.run(Prepared({"lahja_capn": python}, {}).versions())
    assert len(given) == 2
    for variables in given:
        assert "PYTHONDONTWRITEBYTECODE" not in variables
        assert variables["SOMETHING_ELSE"] == "1"


def test_a_job_survives_the_way_to_another_process() -> None:
    job = Job("large", "/tmp/x", count=3, consumers=2, index=1, seed=7)
    assert Job.from_json(job.to_json()) == job


def receive(job: Job) -> list[dict[str, float]]:
    """The reports of consumers that get everything."""
    reports = []
    values = small_values(replace(job, size=64))
    for _ in range(job.consumers):
        sink = Sink(job, lambda: None)
        for producer in range(job.producers):
            for place in replace(job, index=producer).numbers:
                if job.kind == "selective":
                    sink.selective(place)
                elif job.is_large:
                    sink.take_large(place, large_payload(job))
                else:
                    sink.take_small(place, *values[place % len(values)])
        reports.append(sink.facts())
    return reports


@pytest.mark.parametrize("kind", ["small", "large", "selective", "paced"])
def test_consumers_that_got_everything_pass(kind: str) -> None:
    job = Job(kind, "", count=5, consumers=2)
    check(job, receive(job))


def test_a_consumer_of_many_producers_passes_if_each_ones_events_came_in_order() -> None:
    job = Job("fan-in", "", count=6, consumers=1, producers=3)
    check(job, receive(job))
    sink = Sink(job, lambda: None)
    for source, place in ((0, 0), (1, 0), (0, 1), (1, 2)):
        sink.take_small((source << SOURCE_SHIFT) + place, 0.5, b"x", "t", True)
    assert sink.out_of_order == 1


def test_paced_events_are_due_in_bursts_at_the_rate_and_none_is_missing() -> None:
    began = time.monotonic()
    plan = list(bursts(Job("paced", "", count=25, consumers=1, rate=10 / TICK_S)))
    assert [numbers for _, numbers in plan] == [range(10), range(10, 20), range(20, 25)]
    assert all(later[0] - due == pytest.approx(TICK_S) for (due, _), later in itertools.pairwise(plan))
    assert plan[0][0] >= began + TICK_S
    slow = list(bursts(Job("paced", "", count=2, consumers=1, rate=0.5 / TICK_S)))
    assert [numbers for _, numbers in slow] == [range(1), range(1, 2)]
    assert slow[1][0] - slow[0][0] == pytest.approx(2 * TICK_S)


def test_a_paced_sink_times_each_event_from_when_it_was_due() -> None:
    sink = Sink(Job("paced", "", count=1, consumers=1), lambda: None)
    sink.take_small(0, time.monotonic() - 5, b"x", "t", True)
    assert 5 <= sink.facts()["p50"] < 15


def test_percentiles_are_taken_from_the_sorted_times() -> None:
    assert percentiles([float(n) for n in range(1000, 0, -1)]) == {"p50": 501, "p99": 991, "p999": 1000}


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
    sink = Sink(Job("small", "", 2, 1), lambda: calls.append("full"))
    sink.small(0, 0.5, b"x", "t", True)
    assert not calls
    assert sink.last == 0
    sink.small(1, 0.5, b"x", "t", True)
    assert calls == ["full"]
    assert sink.last > 0


def test_a_sink_notices_events_that_come_out_of_order() -> None:
    sink = Sink(Job("small", "", 2, 1), lambda: None)
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
    slow = Measured("c", "lahja", 10, values=[100.0, 200.0, 300.0])
    fast = Measured("c", "other", 10, values=[500.0], p50=[0.0001], p99=[0.0002], p999=[0.0003])
    broken = Measured("c", "broken", 10, failures=["why"])
    lines = table([slow, fast, broken], "lahja", {"c": "events/s"}).splitlines()
    assert lines[2].split() == ["c,", "events/s", "lahja", "200", "100", "300", "1.00"]
    assert lines[3].split() == ["other", "500", "500", "500", "100", "200", "300", "2.50"]
    assert lines[4].split() == ["broken", "failed"]


def test_less_is_better_where_a_case_says_so() -> None:
    slow = Measured("c", "lahja", 10, lower_is_better=True, values=[300.0])
    fast = Measured("c", "other", 10, lower_is_better=True, values=[100.0])
    assert fast.times_better(slow) == 3
    assert slow.times_better(fast) == pytest.approx(1 / 3)
    assert fast.times_better(Measured("c", "broken", 10, failures=["why"])) is None


class Faked:
    """Stands in for the runs: counts them, and lets a clock pass that only they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.runs: list[tuple[str, str]] = []
        self._seconds = seconds
        self._now = 0.0
        monkeypatch.setattr("benchmarks.bench.time.monotonic", lambda: self._now)
        monkeypatch.setattr("benchmarks.bench.run_once", self.run_once)

    async def run_once(self, python: Path, system: str, case: object, *rest: object) -> dict[str, float]:
        self.runs.append((system, getattr(case, "name", "")))
        self._now += self._seconds
        return {"value": 1000.0}


def bench(plan: Plan) -> Bench:
    return Bench(plan, {system: Path("python") for system in plan.systems})


def test_systems_take_turns_and_every_other_round_is_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    faked = Faked(monkeypatch, 1)
    runs = bench(Plan(["lahja", "lahja_capn"], CASES[:1], rounds=3))
    asyncio.run(runs.run())
    assert [
        system for system, _ in faked.runs[2:]
    ] == "lahja lahja_capn lahja_capn lahja lahja lahja_capn".split()
    assert all(one.values == [1000.0] * 3 for one in runs.measured)


def test_a_case_gets_fewer_rounds_when_time_is_short_and_each_gets_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Faked(monkeypatch, 10)
    runs = bench(Plan(["lahja_capn"], CASES[:4], rounds=9, within_s=100))
    asyncio.run(runs.run())
    assert [len(one.values) for one in runs.measured] == [3, 3, 2, 1]


def ratios(**changed: float) -> list[Measured]:
    """A run in which every case has exactly its threshold, but for those that are given."""
    measured = []
    for case, wanted in guard.THRESHOLDS.items():
        ratio = changed.get(case.partition(",")[0].replace(" ", "_"), wanted)
        measured.append(Measured(case, "lahja", 10, values=[90.0, 100.0, 500.0]))
        measured.append(Measured(case, "lahja_capn", 10, values=[1.0, 100.0 * ratio, 1e9]))
    return measured


def test_the_guard_is_content_with_medians_at_their_thresholds() -> None:
    assert guard.complaints(ratios()) == []
    assert set(guard.THRESHOLDS) <= {case.name for case in CASES}


def test_the_guard_fails_a_ratio_below_its_threshold_and_names_it() -> None:
    assert guard.complaints(ratios(**{"1_MB": 2.9})) == ["1 MB, 1 to 1: 2.90 times lahja, wanted at least 3"]
    assert len(guard.complaints(ratios(request=0.7))) == 2


def test_the_guard_is_content_if_the_processor_time_per_event_is_as_low_as_it_should_be() -> None:
    measured = ratios(**{"1_MB": 1.0})
    measured[-2].processor, measured[-1].processor = [0.003, 0.0031, 0.5], [0.001]
    assert guard.complaints(measured) == []
    measured[-1].processor = [0.002]
    assert guard.complaints(measured) == [
        "1 MB, 1 to 1: 1.00 times lahja (1.55 by processor time), wanted at least 3"
    ]


def test_the_guard_fails_a_case_that_gave_no_figure() -> None:
    broken = [Measured(one.case, one.system, 10, failures=["why"]) for one in ratios()[:2]]
    assert guard.complaints(broken + ratios()[2:]) == ["64 B, 1 to 1: not measured: why; why"]
    assert len(guard.complaints([])) == len(guard.THRESHOLDS)


def test_bench_quick_ends_with_1_when_the_guard_complains(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    async def equally_fast(*job: object) -> dict[str, float]:
        runs.append(job)
        return {"value": 1000.0}

    monkeypatch.setattr("benchmarks.bench.run_once", equally_fast)
    monkeypatch.setattr("benchmarks.bench.python_for", lambda system: Path("python"))
    assert guard.main() == 1
    assert len(runs) == 2 * (guard.ROUNDS + 1) * 2 * len(guard.THRESHOLDS)
    monkeypatch.setattr(guard, "THRESHOLDS", dict.fromkeys(guard.THRESHOLDS, 0.9))
    assert guard.main() == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_curve_runs(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    arguments = ["--quick", "--points", "1", "--no-plots", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    curves = json.loads(out.read_text())["curves"]
    names = {curve["name"] for curve in curves}
    assert names == {curve.name for curve in growth.CURVES} | {name for _, name, *_ in growth.BESIDE.values()}
    assert all(point["median"] > 0 for curve in curves for point in curve["points"])
    assert all(len(curve["points"]) == 1 for curve in curves)


def test_the_curves_reach_as_far_as_they_say() -> None:
    ends = {curve.kind: (curve.points[0], curve.points[-1]) for curve in growth.CURVES}
    assert ends == {
        "types": (1, 10_000),
        "peers": (1, 64),
        "subscriptions": (1, 100),
        "payload": (64, 64_000_000),
        "depth": (1, 1_000_000),
    }


def test_more_peers_share_the_same_number_of_deliveries() -> None:
    peers = next(curve for curve in growth.CURVES if curve.kind == "peers")
    assert peers.job("", 1, 1, 1.0).count == 30_000
    assert peers.job("", 64, 1, 1.0).count == 30_000 // 64
    payload = next(curve for curve in growth.CURVES if curve.kind == "payload")
    assert payload.job("", 64_000_000, 1, 1.0).size == 64_000_000


def test_the_profile_names_every_piece_of_an_event_and_of_a_request(tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    arguments = ["--passes", "1", "--events", "20", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=18,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pieces = {piece["name"]: piece for piece in json.loads(out.read_text())["pieces"]}
    for word in "construct encode frame queue send receive decode open number value payload text flag dispatch".split():
        assert any(word in name for name in pieces), word
    assert all(piece["median"] >= piece["lowest"] > 0 for piece in pieces.values())


def test_a_result_is_drawn_per_group_and_a_growth_per_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only the extra `bench` has it")
    from benchmarks import plots

    facts = {"commit": "abc", "began": "2024-01-01", "machine": {"processor": "p", "cores": 2}}
    one = {
        "case": "c",
        "system": "lahja",
        "unit": "ms",
        "median": 2.0,
        "values": [1.0, 3.0],
        "lower_is_better": True,
    }
    broken = {**one, "system": "nats", "median": None, "values": []}
    results = [
        {**one, "group": "small events"},
        {**broken, "group": "small events"},
        {**broken, "group": "none"},
    ]
    result = tmp_path / "result.json"
    result.write_text(json.dumps({**facts, "results": results}))
    assert [image.name for image in plots.draw(result, tmp_path)] == ["small-events.png"]
    curve = {"name": "queue depth", "along": "events", "unit": "ms"}
    points = [{"at": at, "median": 1.0, "values": [0.9, 1.1]} for at in (1, 10)]
    growth_file = tmp_path / "growth.json"
    growth_file.write_text(
        json.dumps({**facts, "curves": [{**curve, "points": points}, {**curve, "points": []}]})
    )
    images = plots.draw(growth_file, tmp_path)
    assert [image.name for image in images] == ["growth-queue-depth.png"]
    assert images[0].read_bytes().startswith(b"\x89PNG")
