"""Pools in this process: what the shared contract leaves open."""

from __future__ import annotations

import sys

import numpy as np

from cluster.local import LocalCluster
from cluster.pool import Done, WorkerSpec
from tests.cluster.workers import Worker, build


def test_a_pool_builds_one_object_however_many_workers_it_is_to_have() -> None:
    built: list[Worker] = []

    def build_and_count() -> Worker:
        built.append(Worker())
        return built[-1]

    cluster = LocalCluster()
    cluster.start(WorkerSpec("sampler", build_and_count, num=8))
    assert built == []
    cluster.ready(1)
    assert len(built) == 1


def test_each_wait_runs_the_oldest_call_of_all_pools() -> None:
    cluster = LocalCluster()
    sampler = cluster.start(WorkerSpec("sampler", build, num=1))
    reward = cluster.start(WorkerSpec("reward", build, num=1))
    for key, pool in enumerate([sampler, reward, sampler]):
        pool.submit(key, "pid")
    assert [[outcome.key for outcome in cluster.wait(1)] for _ in range(4)] == [[0], [1], [2], []]


def test_an_array_that_travelled_is_not_copied_again() -> None:
    cluster = LocalCluster()
    handle = cluster.put(np.ones(1000))
    assert np.shares_memory(cluster.put(handle), handle)


def test_arrays_inside_of_records_are_read_only_too() -> None:
    cluster = LocalCluster()
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "twice", {"latents": [np.ones(3)]}, outputs=2)
    (done,) = cluster.wait(1)
    assert isinstance(done, Done)
    assert not done.outputs[0]["latents"][0].flags.writeable


def test_a_local_cluster_never_imports_ray() -> None:
    import subprocess

    script = (
        "import sys; from cluster.config import ClusterConfig; from cluster.session import open_cluster\n"
        "with open_cluster(ClusterConfig(kind='local')) as cluster: assert not cluster.wait(0)\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
