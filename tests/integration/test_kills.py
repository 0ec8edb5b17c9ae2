"""Processes killed by SIGKILL in mid-run: what comes out is what an undisturbed run gives, and counted once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import learner.wiring
from cluster.config import ClusterConfig
from cluster.pool import Cluster
from cluster.session import open_cluster
from learner.config import RunConfig
from tests.tiny_run import assert_all_counted_once, folder_of, results, rows, run_tiny, tiny_config, write_preset

ROUNDS, KILLED_AFTER, SAMPLES = 6, 3, 48
SLOW = {"steps": 8}
"""So that rounds last long enough to be killed in."""


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def kill_in_mid_run(config: RunConfig, preset: Path, environment: dict[str, str]) -> None:
    """Run it as a process, and kill that with all that it started when some rounds are done."""
    command = [sys.executable, "-m", "learner.main", write_preset(config, preset)]
    driver = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    started: list[psutil.Process] = []
    try:
        until(lambda: len(rows(folder_of(config))) >= KILLED_AFTER or driver.poll() is not None)
        started = driver.children(recursive=True)
    finally:
        driver.kill()
        assert driver.wait(10) == -signal.SIGKILL, "it ended before it could be killed"
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=10)
    assert not (folder_of(config) / "summary.json").exists()
    assert len(rows(folder_of(config))) < ROUNDS


def assert_resumes_as_undisturbed(config: RunConfig, undisturbed: RunConfig) -> None:
    digest = run_tiny(undisturbed)["lora_digest"]
    summary = run_tiny(config, resume=True)
    assert summary["lora_digest"] == digest
    assert summary["version"] == ROUNDS
    assert [row["version"] for row in rows(folder_of(config))] == list(range(1, ROUNDS + 1))
    assert results(folder_of(config)) == results(folder_of(undisturbed))
    assert all(row["grad_norm"] > 0 for row in rows(folder_of(config)))
    assert_all_counted_once(summary, SAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_a_killed_run_resumes_bit_for_bit(tiny_model: Path, tmp_path: Path, lag: int) -> None:
    # The newest checkpoint is that of round 2, so work of round 3 and after is lost and done again.
    changes = {"schedule": {"lag": lag}, "denoising": SLOW, "checkpoint": {"every": 2}}
    killed = tiny_config(tiny_model, tmp_path, run={"name": "killed", "rounds": ROUNDS}, **changes)
    undisturbed = tiny_config(tiny_model, tmp_path, run={"name": "undisturbed", "rounds": ROUNDS}, **changes)
    kill_in_mid_run(killed, tmp_path / "preset.toml", dict(os.environ))
    assert_resumes_as_undisturbed(killed, undisturbed)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_killed_with_its_ray_resumes_bit_for_bit_on_another(
    ray_session: None, tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"schedule": {"lag": 1}, "denoising": SLOW}
    killed = tiny_config(
        tiny_model,
        tmp_path,
        run={"name": "killed", "rounds": ROUNDS},
        cluster={"kind": "ray", "dashboard": False, "object_store_mb": 100},
        **changes,
    )
    undisturbed = tiny_config(tiny_model, tmp_path, run={"name": "undisturbed", "rounds": ROUNDS}, **changes)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own_ray = {"HOME": home, "RAY_TMPDIR": home, "RAY_worker_niceness": "0"}
        kill_in_mid_run(killed, tmp_path / "preset.toml", {**environment, **own_ray})
    assert_resumes_as_undisturbed(killed, undisturbed)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("worker", ["sampler-00", "reward-00"])
def test_a_worker_killed_with_work_in_hand_changes_nothing(
    ray_session: None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    worker: str,
) -> None:
    config = tiny_config(tiny_model, tmp_path, run={"name": "disturbed"}, schedule={"lag": 1}, cluster={"kind": "ray"})
    undisturbed = tiny_config(tiny_model, tmp_path, run={"name": "undisturbed"}, schedule={"lag": 1})
    opened: list[Cluster] = []

    @contextmanager
    def watched(cluster_config: ClusterConfig) -> Iterator[Cluster]:
        with open_cluster(cluster_config) as cluster:
            opened.append(cluster)
            yield cluster

    killed: list[int] = []

    def stop_it_until_it_has_work_then_kill_it() -> None:
        until(lambda: len(rows(folder_of(config))) >= 1)
        pid = int(state(worker, r"pid (\d+)"))
        os.kill(pid, signal.SIGSTOP)
        until(lambda: bool(state(worker, r"( for [\d.]+ s, )")))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    def state(name: str, pattern: str) -> str:
        (line,) = re.findall(rf"^ *{name}: .*$", opened[0].diagnosis(), re.MULTILINE)
        found = re.search(pattern, line)
        return found.group(1) if found else ""

    monkeypatch.setattr(learner.wiring, "open_cluster", watched)
    killer = threading.Thread(target=stop_it_until_it_has_work_then_kill_it, daemon=True)
    killer.start()
    summary = run_tiny(config)
    killer.join(10)
    monkeypatch.undo()
    assert killed
    assert re.search(rf"{worker} lost task \d+ .*; it is drawn again|a call to {worker} was lost", caplog.text)
    assert summary["lora_digest"] == run_tiny(undisturbed)["lora_digest"]
    assert results(folder_of(config)) == results(folder_of(undisturbed))
    assert_all_counted_once(summary, 32)
    if worker == "sampler-00":
        assert summary["ledger"]["reissued_tasks"] > 0
