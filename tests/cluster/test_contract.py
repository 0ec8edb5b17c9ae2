"""What the learner may rely on, whichever cluster it runs on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from cluster.config import ClusterConfig
from cluster.pool import Cluster, Done, Outcome, WorkerSpec
from cluster.session import open_cluster
from tests.cluster.workers import build, build_from_a_missing_folder


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    with open_cluster(ClusterConfig(kind=request.param)) as opened:
        yield opened


def all_outcomes(cluster: Cluster, count: int, seconds: float = 30) -> list[Outcome]:
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + seconds
    while len(outcomes) < count and time.monotonic() < deadline:
        outcomes += cluster.wait(1)
    return outcomes


def one_done(cluster: Cluster) -> Done:
    (outcome,) = all_outcomes(cluster, 1)
    assert isinstance(outcome, Done), outcome
    return outcome


def test_a_call_comes_back_with_its_pool_its_key_and_its_result(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    cluster.ready(60)
    pool.submit(("task", 7), "double", np.arange(3))
    done = one_done(cluster)
    assert (done.pool, done.key, done.worker) == ("sampler", ("task", 7), "sampler-00")
    np.testing.assert_array_equal(cluster.get(done.outputs[0], 10), [0, 2, 4])


def test_each_of_many_calls_comes_back_once(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=2))
    for key in range(20):
        pool.submit(key, "pid")
    keys = [outcome.key for outcome in all_outcomes(cluster, 20)]
    assert len(keys) == 20
    assert set(keys) == set(range(20))
    assert cluster.wait(0) == []


def test_every_output_has_a_handle_of_its_own(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "twice", "image", outputs=2)
    assert [cluster.get(handle, 10) for handle in one_done(cluster).outputs] == ["image", "image"]


def test_a_method_with_the_wrong_number_of_outputs_is_named(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "pid", outputs=2)
    with pytest.raises(TypeError, match=r"Worker\.pid was to return a tuple of 2"):
        all_outcomes(cluster, 1)


def test_handles_of_one_pool_are_values_in_another(cluster: Cluster) -> None:
    sampler = cluster.start(WorkerSpec("sampler", build, num=1))
    reward = cluster.start(WorkerSpec("reward", build, num=1))
    sampler.submit(0, "ones", 500_000)
    reward.submit(0, "double", one_done(cluster).outputs[0])
    done = one_done(cluster)
    assert done.pool == "reward"
    assert cluster.get(done.outputs[0], 10).sum() == 1_000_000


def test_a_value_that_was_put_reaches_any_number_of_calls(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    handle = cluster.put(np.ones(3))
    pool.submit("a", "double", handle)
    pool.submit("b", "double", handle)
    outcomes = all_outcomes(cluster, 2)
    assert [cluster.get(done.outputs[0], 10).sum() for done in outcomes if isinstance(done, Done)] == [6, 6]


@pytest.mark.parametrize("size", [3, 500_000])
def test_arrays_that_travelled_are_read_only(cluster: Cluster, size: int) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "ones", size)
    assert not cluster.get(one_done(cluster).outputs[0], 10).flags.writeable
    pool.submit(1, "writes_to", np.zeros(size))
    with pytest.raises(ValueError, match="read-only"):
        all_outcomes(cluster, 1)


def test_what_the_caller_does_to_its_array_later_does_not_reach_the_call(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    array = np.ones(3)
    handle = cluster.put(array)
    array[:] = 0
    pool.submit(0, "double", handle)
    assert cluster.get(one_done(cluster).outputs[0], 10).sum() == 6


def test_a_bug_in_a_worker_is_raised_as_itself_and_the_pool_goes_on(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "look_up", "unknown")
    pool.submit(1, "look_up", "known")
    with pytest.raises(KeyError) as raised:
        all_outcomes(cluster, 2)
    assert raised.value.args == ("unknown",)
    assert pool.in_flight() == [1]
    assert one_done(cluster).key == 1


def test_what_a_constructor_raises_comes_out_of_ready_as_itself(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("sampler", build_from_a_missing_folder, num=1))
    with pytest.raises(FileNotFoundError, match="no model in /nowhere"):
        cluster.ready(60)


def test_a_key_is_in_flight_until_its_outcome_was_returned(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit("a", "pid")
    pool.submit("b", "pid")
    assert pool.in_flight() == ["a", "b"]
    with pytest.raises(ValueError, match="'a' is in flight already"):
        pool.submit("a", "pid")
    all_outcomes(cluster, 2)
    assert pool.in_flight() == []
    pool.submit("a", "pid")
    assert one_done(cluster).key == "a"


def test_a_pool_is_started_once(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("sampler", build, num=1))
    with pytest.raises(ValueError, match="a pool 'sampler' already"):
        cluster.start(WorkerSpec("sampler", build, num=1))


def test_diagnosis_names_the_pools_and_the_calls(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    cluster.ready(60)
    pool.submit("task 5", "sleep", 0.2)
    began = time.monotonic()
    text = cluster.diagnosis()
    assert time.monotonic() - began < 10
    assert "sampler" in text
    all_outcomes(cluster, 1)


def test_a_pool_names_its_workers(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    assert list(pool.workers()) == ["sampler-00"]
    pool.submit(0, "pid")
    assert one_done(cluster).worker in pool.workers()


def test_the_only_worker_takes_what_should_avoid_it(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "pid", avoid={"sampler-00"})
    assert one_done(cluster).worker == "sampler-00"


def test_the_only_worker_gets_no_rest(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.rest("sampler-00", 3600)
    pool.rest("sampler-07", 3600)
    pool.submit(0, "pid")
    assert one_done(cluster).worker == "sampler-00"


def test_a_queued_call_that_is_withdrawn_never_runs_and_its_key_is_free(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    for key in "abc":
        pool.submit(key, "look_up", "unknown" if key == "b" else "known")
    pool.withdraw("b")
    assert pool.in_flight() == ["a", "c"]
    pool.submit("b", "look_up", "known")
    assert [outcome.key for outcome in all_outcomes(cluster, 3)] == ["a", "c", "b"]
    assert cluster.wait(0.1) == []


def test_withdrawing_what_is_not_in_flight_changes_nothing(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit("a", "pid")
    one_done(cluster)
    pool.withdraw("a")
    pool.withdraw("never seen")
    pool.submit("a", "pid")
    assert one_done(cluster).key == "a"


def test_nothing_runs_once_all_have_ended(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    assert pool.running() == {}
    pool.submit("a", "pid")
    assert pool.running() == {}
    one_done(cluster)
    assert pool.running() == {}


def test_limits_environments_and_patience_do_not_disturb_a_call(cluster: Cluster) -> None:
    spec = WorkerSpec("sampler", build, 1, call_timeout_s=20, runtime_env={"env_vars": {"A": "1"}}, survives=True)
    pool = cluster.start(spec)
    pool.submit(0, "double", np.ones(2))
    assert cluster.get(one_done(cluster).outputs[0], 10).sum() == 4


def test_a_pool_that_survives_is_not_started_where_none_of_it_can_be_built(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("sampler", build_from_a_missing_folder, num=2, survives=True))
    with pytest.raises(FileNotFoundError, match="no model in /nowhere"):
        cluster.ready(60)
