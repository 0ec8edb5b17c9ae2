"""Refusals are certain ones, and name what is missing."""

from __future__ import annotations

from cluster.placement import shortage
from cluster.pool import WorkerSpec
from tests.cluster.workers import build

NODES = {"a": {"CPU": 4.0, "GPU": 1.0}, "b": {"CPU": 4.0, "GPU": 1.0}}


def test_a_missing_resource_is_named_with_what_there_is() -> None:
    text = shortage([WorkerSpec("sampler", build, num=3, num_gpus=1)], {"a": {"CPU": 2.0}})
    assert text == "sampler needs GPU 1 each, 3 of them; the cluster has GPU 0 (nodes: a: CPU 2)"


def test_workers_that_ask_for_nothing_fit_anywhere() -> None:
    assert shortage([WorkerSpec("sampler", build, num=1000)], NODES) is None


def test_a_worker_does_not_span_two_nodes() -> None:
    assert shortage([WorkerSpec("sampler", build, num=1, num_gpus=2)], NODES) is not None
    assert shortage([WorkerSpec("sampler", build, num=2, num_gpus=1)], NODES) is None


def test_pools_that_fit_alone_may_not_fit_together() -> None:
    sampler = WorkerSpec("sampler", build, num=2, num_gpus=1)
    reward = WorkerSpec("reward", build, num=1, num_gpus=0.5)
    text = shortage([sampler, reward], NODES)
    assert text is not None
    assert text.startswith(
        "2 sampler (GPU 1 each), 1 reward (GPU 0.5 each) need GPU 2.5 together; the cluster has GPU 2"
    )


def test_tenths_add_up_to_a_whole() -> None:
    assert shortage([WorkerSpec("reward", build, num=40, num_cpus=0.1)], {"a": {"CPU": 4.0}}) is None
    assert shortage([WorkerSpec("reward", build, num=41, num_cpus=0.1)], {"a": {"CPU": 4.0}}) is not None


def test_custom_resources_count_as_any_other() -> None:
    spec = WorkerSpec("sampler", build, num=2, resources=(("sampler", 1.0),))
    assert shortage([spec], {"a": {"sampler": 1.0}}) is not None
    assert shortage([spec], {"a": {"sampler": 1.0}, "b": {"sampler": 1.0}}) is None
