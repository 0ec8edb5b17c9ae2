"""Pools on Ray: processes that die, constructors that fail, places that are not there."""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.pool import (
    Cluster,
    ClusterError,
    Done,
    Lost,
    ObjectLost,
    ResourcesUnavailable,
    WorkersNotReady,
    WorkerSpec,
)
from cluster.session import open_cluster
from tests.cluster.test_contract import all_outcomes, one_done
from tests.cluster.workers import build, build_and_die, build_slowly

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(ray_session: None) -> Iterator[Cluster]:
    with open_cluster(ClusterConfig()) as opened:
        yield opened


def test_the_call_a_killed_process_was_at_is_lost_and_those_behind_it_are_not(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit("before", "pid")
    pid = cluster.get(one_done(cluster).outputs[0], 10)
    for key in ("running", "handed out", "queued"):
        pool.submit(key, "sleep", 1.0)
    assert cluster.wait(0.2) == []
    os.kill(pid, signal.SIGKILL)
    outcomes = {outcome.key: outcome for outcome in all_outcomes(cluster, 3)}
    assert [type(outcomes[key]) for key in ("running", "handed out", "queued")] == [Lost, Done, Done]
    assert outcomes["running"].worker == "sampler-00"
    assert pool.in_flight() == []


def test_a_process_that_dies_idle_costs_at_most_one_call(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "pid")
    os.kill(cluster.get(one_done(cluster).outputs[0], 10), signal.SIGKILL)
    pool.submit(1, "pid")
    all_outcomes(cluster, 1)
    pool.submit(2, "pid")
    assert one_done(cluster).key == 2


def test_results_survive_the_process_that_made_them(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "ones", 500_000)
    (result,) = one_done(cluster).outputs
    pool.submit(1, "die")
    (lost,) = all_outcomes(cluster, 1)
    assert isinstance(lost, Lost)
    assert cluster.get(result, 10).sum() == 500_000


def test_a_bug_carries_the_traceback_from_over_there(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "look_up", "unknown")
    with pytest.raises(KeyError) as raised:
        all_outcomes(cluster, 1)
    assert type(raised.value) is KeyError
    assert "workers.py" in str(raised.value.__cause__)


def test_a_constructor_that_kills_its_process_is_tried_three_times(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("sampler", build_and_die, num=1))
    with pytest.raises(ClusterError, match=r"sampler-00 died 3 times while it was being built: .*process has died"):
        cluster.ready(60)


def test_a_module_that_workers_do_not_have_is_named_with_the_cure(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    exec("def build(): ...", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    cluster.start(WorkerSpec("sampler", module.build, num=1))
    with pytest.raises(ClusterError, match=r"No module named 'only_here'; install what is missing on every node"):
        cluster.ready(60)


def test_workers_that_take_too_long_are_named(cluster: Cluster) -> None:
    cluster.start(WorkerSpec("sampler", build_slowly, num=1))
    with pytest.raises(WorkersNotReady, match=r"1 workers were not ready after 2 s:\nsampler-00: for \d s being built"):
        cluster.ready(2)


def test_what_can_never_be_placed_is_refused_by_name(cluster: Cluster) -> None:
    with pytest.raises(ResourcesUnavailable, match=r"sampler needs unobtainium 1 each, 3 of them; .* unobtainium 0"):
        cluster.start(WorkerSpec("sampler", build, num=3, resources=(("unobtainium", 1),)))


def test_a_call_goes_to_a_free_worker_first(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=2))
    cluster.ready(60)
    for key in range(2):
        pool.submit(key, "sleep", 0.5)
    assert {outcome.worker for outcome in all_outcomes(cluster, 2)} == {"sampler-00", "sampler-01"}


def test_diagnosis_says_who_does_what_since_when(cluster: Cluster) -> None:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    cluster.ready(60)
    pool.submit("task 5", "sleep", 1.0)
    cluster.wait(0.1)
    text = cluster.diagnosis()
    assert "sampler: 1 calls in flight, 0 of them queued" in text
    assert "sampler-00: 'task 5' for 0." in text
    assert f"on {os.uname().nodename}" in text
    all_outcomes(cluster, 1)


def test_ray_listens_on_loopback_only(cluster: Cluster) -> None:
    cluster.ready(1)
    listeners: set[str] = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # workers of the test before may be on their way out
            connections = process.net_connections("inet")
            listeners |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert listeners
    assert listeners <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@contextmanager
def second_node(resource: str) -> Iterator[Callable[[], None]]:
    """A second node on this machine that offers ``resource``; gives what kills it.

    By Ray's own parts for its tests, as `ray start` refuses a second node on loopback.
    """
    import ray
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    node = Node(
        RayParams(
            gcs_address=ray.get_runtime_context().gcs_address,
            num_cpus=0,
            resources={resource: 1},
            object_store_memory=80 * 2**20,
            node_manager_port=0,
            min_worker_port=0,
            max_worker_port=0,
            dashboard_agent_listen_port=None,
        ),
        head=False,
        shutdown_at_exit=False,
        spawn_reaper=False,
    )
    try:
        deadline = time.monotonic() + 30
        while resource not in ray.cluster_resources():
            assert time.monotonic() < deadline, "the second node did not join"
            time.sleep(0.1)
        yield lambda: node.kill_raylet(check_alive=False)
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def test_values_that_died_with_their_node_end_calls_as_lost(cluster: Cluster) -> None:
    with second_node("doomed") as kill_node:
        doomed = cluster.start(WorkerSpec("sampler", build, num=1, resources=(("doomed", 1),)))
        reward = cluster.start(WorkerSpec("reward", build, num=1, resources=(("node:__internal_head__", 0.1),)))
        cluster.ready(60)
        doomed.submit("made there", "ones", 500_000)
        images = one_done(cluster).outputs[0]
        doomed.submit("running there", "sleep", 60.0)
        assert cluster.wait(0.5) == []
        kill_node()
        (lost,) = all_outcomes(cluster, 1)
        assert isinstance(lost, Lost)
        assert (lost.key, lost.arguments_gone) == ("running there", False)
        reward.submit("score", "double", images)
        (lost,) = all_outcomes(cluster, 1)
        assert isinstance(lost, Lost)
        assert (lost.key, lost.worker, lost.arguments_gone) == ("score", "reward-00", True)
        with pytest.raises(ObjectLost):
            cluster.get(images, 20)
        reward.submit("next", "pid")
        assert one_done(cluster).key == "next"
