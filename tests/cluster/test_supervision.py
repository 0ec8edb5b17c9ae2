"""Pools on Ray with limits and patience: calls that hang, workers to avoid, replicas that keep failing."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.pool import Cluster, ClusterError, Done, Lost, Pool, WorkerSpec
from cluster.session import open_cluster
from tests.cluster.test_contract import all_outcomes, one_done
from tests.cluster.workers import build, build_and_die, build_unless_it_is, build_while_there_is

pytestmark = pytest.mark.ray

LIMIT_S = 1.5


@pytest.fixture
def cluster(ray_session: None) -> Iterator[Cluster]:
    with open_cluster(ClusterConfig()) as opened:
        yield opened


@pytest.fixture
def impatience(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are out after two deaths, and for two seconds at first."""
    # By name, as Ray is not to be imported before its session has been set up.
    monkeypatch.setattr("cluster.supervision._LIVES_WITHOUT_RESULT", 2)
    monkeypatch.setattr("cluster.duty.FIRST_PAUSE_S", 2.0)


def started(cluster: Cluster, spec: WorkerSpec) -> Pool:
    pool = cluster.start(spec)
    cluster.ready(60)
    return pool


def pid_of(cluster: Cluster, pool: Pool, worker: str) -> int:
    pool.submit("pid", "pid", avoid=set(pool.workers()) - {worker})
    done = one_done(cluster)
    assert done.worker == worker
    return cluster.get(done.outputs[0], 10)


@pytest.mark.parametrize(("method", "args"), [("sleep", [60.0]), ("hang_in_native_code", [])])
def test_a_call_that_hangs_is_ended_and_the_one_behind_it_is_done_first(
    cluster: Cluster, method: str, args: list[float]
) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=LIMIT_S))
    pid = pid_of(cluster, pool, "sampler-00")
    pool.submit("hangs", method, *args)
    pool.submit("behind it", "pid")
    pool.submit("queued", "pid")
    began = time.monotonic()
    (lost,) = cluster.wait(30)
    assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 1
    assert lost == Lost("sampler", "hangs", "sampler-00", "did not answer within 1.5 s", late=True)
    outcomes = all_outcomes(cluster, 2)
    assert [(type(outcome), outcome.key) for outcome in outcomes] == [(Done, "behind it"), (Done, "queued")]
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert not psutil.pid_exists(pid)


def test_waiting_at_a_worker_does_not_count_as_being_late(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=LIMIT_S))
    for key in range(2):
        pool.submit(key, "sleep", 1.0)
    assert [type(outcome) for outcome in all_outcomes(cluster, 2)] == [Done, Done]


def test_the_time_of_the_second_call_begins_with_the_end_of_the_first(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=LIMIT_S))
    began = time.monotonic()
    pool.submit("first", "sleep", 1.0)
    pool.submit("second", "sleep", 60.0)
    assert [(type(outcome), outcome.key) for outcome in all_outcomes(cluster, 2)] == [(Done, "first"), (Lost, "second")]
    assert 1.0 + LIMIT_S <= time.monotonic() - began < 2.0 + LIMIT_S


def test_calls_that_ended_while_the_caller_was_busy_are_not_late(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=LIMIT_S))
    for key in range(2):
        pool.submit(key, "sleep", 0.5)
    assert cluster.wait(0) == []
    time.sleep(2 * LIMIT_S)
    assert [type(outcome) for outcome in all_outcomes(cluster, 2)] == [Done, Done]


def test_running_names_the_worker_of_each_call_and_how_long_it_has_been_at_it(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1))
    pool.submit("first", "sleep", 1.0)
    pool.submit("second", "sleep", 0.5)
    assert cluster.wait(0.3) == []
    ((key, (worker, seconds)),) = pool.running().items()
    assert (key, worker) == ("first", "sampler-00")
    assert 0.2 < seconds < 1
    assert one_done(cluster).key == "first"
    assert list(pool.running()) == ["second"]
    assert pool.running()["second"][1] < 0.4


def test_an_avoided_worker_is_left_out_and_does_not_stop_the_others(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 2))
    for key in range(3):
        pool.submit(key, "sleep", 0.5, avoid={"sampler-00"})
    pool.submit("behind them", "pid")
    outcomes = {outcome.key: outcome.worker for outcome in all_outcomes(cluster, 4)}
    assert next(iter(outcomes)) == "behind them"
    assert outcomes == {"behind them": "sampler-00", **dict.fromkeys(range(3), "sampler-01")}


def test_a_resting_worker_is_given_calls_again_when_its_time_is_over(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 2))
    pool.rest("sampler-00", 2.0)
    began = time.monotonic()
    for key in range(2):
        pool.submit(key, "sleep", 5.0)
    pool.submit("third", "pid")
    resting = r"sampler-00: resting for another [12] s as its caller asked, idle, pid \d+ on"
    assert re.search(resting, cluster.diagnosis())
    done = one_done(cluster)
    assert (done.key, done.worker) == ("third", "sampler-00")
    assert 1.9 < time.monotonic() - began < 3


def until_free(cluster: Cluster, pool: Pool, key: str) -> None:
    """Submit ``pid`` under a withdrawn key as soon as that is possible."""
    deadline = time.monotonic() + 20
    while True:
        assert cluster.wait(0.05) == []
        try:
            return pool.submit(key, "pid")
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    "calls",
    [
        [("withdrawn", "sleep", 0.5), ("kept", "pid")],
        [("withdrawn", "hang_in_native_code"), ("kept", "pid")],
        # Not at once, since the result of the call before is still on its way.
        [("kept", "sleep", 0.5), ("withdrawn", "die", 0.3)],
        [("kept", "sleep", 0.5), ("withdrawn", "look_up", "unknown")],
    ],
    ids=lambda calls: "-".join(method for _, method, *_ in calls),
)
def test_however_a_withdrawn_call_ends_nobody_hears_of_it(
    cluster: Cluster, calls: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=LIMIT_S))
    for key, method, *args in calls:
        pool.submit(key, method, *args)
    assert cluster.wait(0) == []
    pool.withdraw("withdrawn")
    assert pool.in_flight() == ["kept"]
    with pytest.raises(ValueError, match="'withdrawn' was withdrawn but still runs"):
        pool.submit("withdrawn", "pid")
    assert one_done(cluster).key == "kept"
    until_free(cluster, pool, "withdrawn")
    assert one_done(cluster).key == "withdrawn"
    is_bug = ("withdrawn", "look_up", "unknown") in calls
    assert ("withdrawn call 'withdrawn' of sampler-00 raised KeyError: 'unknown'" in caplog.text) == is_bug


def test_an_outcome_that_came_in_beside_an_exception_can_still_be_withdrawn(cluster: Cluster) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1))
    pool.submit("good", "sleep", 0.3)
    pool.submit("bad", "look_up", "unknown")
    assert cluster.wait(0) == []
    time.sleep(1.0)
    with pytest.raises(KeyError):
        cluster.wait(5)
    pool.withdraw("good")
    assert cluster.wait(0.2) == []
    pool.submit("good", "pid")
    assert one_done(cluster).key == "good"


def test_one_that_dies_on_every_call_is_taken_out_while_another_serves_all(cluster: Cluster, impatience: None) -> None:
    pool = started(cluster, WorkerSpec("reward", build, 2, survives=True))
    fresh, told, deadline = count(), "", time.monotonic() + 60
    while "out for another" not in told:
        assert time.monotonic() < deadline
        while len(pool.in_flight()) < 4:
            pool.submit(next(fresh), "die_if_it_is", "reward-00")
        for outcome in cluster.wait(1):
            if isinstance(outcome, Lost):
                assert outcome.worker == "reward-00"
                pool.submit(outcome.key, "die_if_it_is", "reward-00", avoid={outcome.worker})
        told = cluster.diagnosis()
    rest = all_outcomes(cluster, len(pool.in_flight()))
    assert {(type(outcome), outcome.worker) for outcome in rest} == {(Done, "reward-01")}
    assert re.search(r"reward-00: out for another \d s: reward-00 died 2 times in a row without finishing a call", told)


def test_where_all_are_out_calls_wait_and_a_success_makes_up_for_all(cluster: Cluster, impatience: None) -> None:
    pool = started(cluster, WorkerSpec("reward", build, 1, survives=True))
    for _ in range(2):
        for key in range(2):
            assert "reward-00: out" not in cluster.diagnosis()
            pool.submit(key, "die")
            (lost,) = all_outcomes(cluster, 1)
            assert isinstance(lost, Lost)
        began = time.monotonic()
        pool.submit("waits", "pid")
        assert cluster.wait(0.1) == []
        state = r"1 calls in flight, 1 of them queued\n  reward-00: out for another [012] s: reward-00 died 2 times"
        assert re.search(state, cluster.diagnosis())
        assert one_done(cluster).key == "waits"
        assert 1.9 < time.monotonic() - began < 4


def test_one_that_cannot_be_built_any_more_is_tried_again_until_it_can(
    cluster: Cluster, impatience: None, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.touch()
    pool = started(cluster, WorkerSpec("reward", partial(build_while_there_is, model), 2, survives=True))
    pid = pid_of(cluster, pool, "reward-00")
    model.unlink()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while "reward-00: out for another" not in cluster.diagnosis():
        assert time.monotonic() < deadline
        pool.submit("call", "pid")
        all_outcomes(cluster, 1)
    assert re.search(r"reward-00: out for another \d s: FileNotFoundError: no model in model", cluster.diagnosis())
    model.touch()
    while server_of_one_call(cluster, pool) != "reward-00":
        assert time.monotonic() < deadline


def server_of_one_call(cluster: Cluster, pool: Pool) -> str:
    pool.submit("any", "pid")
    return one_done(cluster).worker


def test_one_of_several_that_cannot_be_built_is_left_out(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("reward", partial(build_unless_it_is, "reward-00"), 2, survives=True))
    cluster.ready(60)
    assert "reward-00: out for another" in cluster.diagnosis()
    pool.submit("call", "pid")
    assert one_done(cluster).worker == "reward-01"


def test_a_pool_that_survives_but_dies_while_being_built_is_not_started(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("reward", build_and_die, 2, survives=True))
    with pytest.raises(ClusterError, match=r"reward-0\d died 3 times while it was being built"):
        cluster.ready(60)


def test_a_pool_that_does_not_survive_ends_the_run(cluster: Cluster, impatience: None) -> None:
    pool = started(cluster, WorkerSpec("sampler", build, 1, call_timeout_s=0.2))
    for key in range(2):
        pool.submit(key, "sleep", 60.0)
    with pytest.raises(ClusterError, match=r"sampler-00 died 2 times in a row .*: did not answer within 0\.2 s"):
        all_outcomes(cluster, 2)


def test_variables_reach_the_workers_in_every_life(cluster: Cluster) -> None:
    spec = WorkerSpec("sampler", build, 1, runtime_env={"env_vars": {"DDPO_TEST": "here"}})
    pool = started(cluster, spec)
    os.kill(pid_of(cluster, pool, "sampler-00"), signal.SIGKILL)
    for _ in range(2):  # the first may be lost
        pool.submit(0, "variable", "DDPO_TEST")
        (outcome,) = all_outcomes(cluster, 1)
    assert isinstance(outcome, Done)
    assert cluster.get(outcome.outputs[0], 10) == "here"


@pytest.mark.parametrize("survives", [False, True])
def test_an_environment_that_cannot_be_set_up_is_one_line_with_the_cure(cluster: Cluster, survives: bool) -> None:
    environment = {"working_dir": "gcs://_ray_pkg_of_nobody.zip"}
    cluster.start(WorkerSpec("reward", build, 1, runtime_env=environment, survives=survives))
    with pytest.raises(ClusterError) as raised:
        cluster.ready(60)
    (line,) = str(raised.value).splitlines()
    assert line.startswith("reward-00 cannot be started: its runtime_env cannot be set up: ")
    assert "_ray_pkg_of_nobody.zip" in line
    assert "change the runtime_env too" in line


def test_an_environment_that_is_no_environment_is_refused_at_once(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"^Ray refuses the runtime_env of reward: .*env_vars.* type .*int.*$"):
        cluster.start(WorkerSpec("reward", build, 1, runtime_env={"env_vars": {"THREADS": 1}}))
