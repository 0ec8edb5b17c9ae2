"""Jobs submitted to a Ray that was started by `ray start --head`, as its user does it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.tiny_run import folder_of, rows, tiny_config, write_preset

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROJECT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    home: Path
    environment: dict[str, str]

    def submit(self, *arguments: str) -> subprocess.Popen[str]:
        """`ray job submit` of the main program from the project's folder."""
        command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", "learner.main", *arguments]
        return subprocess.Popen(
            command, cwd=PROJECT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray of its own, on this machine's loopback address; ended by the ids of its processes."""
    port, dashboard, client, agent = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": home,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        command = [
            *(RAY, "start", "--head", "--block", f"--temp-dir={home}", f"--port={port}", "--num-cpus=2"),
            *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *(f"--dashboard-agent-listen-port={agent}", "--object-store-memory=200000000"),
        ]
        process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_jobs_server(f"http://127.0.0.1:{dashboard}")
            yield Head(Path(home), {**environment, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"})
        finally:
            family = [*process.children(recursive=True), process]
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(family, timeout=20)


def wait_for_jobs_server(url: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{url}/api/jobs/", timeout=5).read()
            return
        except OSError:
            assert time.monotonic() < deadline, "the Ray head did not come up"
            time.sleep(0.3)


def test_a_job_succeeds_and_one_with_a_bad_preset_fails_with_its_line(
    head: Head, tiny_model: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_model, tmp_path, run={"name": "job", "rounds": 2}, cluster={"kind": "ray"})
    preset = write_preset(config, tmp_path / "preset.toml")
    bad = head.submit("compresibility", "--run.dir", str(tmp_path), "--run.name", "bad")
    bad_output, _ = bad.communicate(timeout=150)
    assert bad.returncode != 0
    assert "error: no preset 'compresibility' (shipped: alignment, compressibility, " in bad_output
    assert not (tmp_path / "bad").exists()

    good = head.submit(preset)
    output, _ = good.communicate(timeout=200)
    assert good.returncode == 0, output
    assert "round 2/2" in output
    summary = json.loads((folder_of(config) / "summary.json").read_text())
    assert summary["version"] == 2
    assert summary["lora_digest"] in output
    assert len(rows(folder_of(config))) == 2

    # What the job was given of this folder.
    (uploaded,) = head.home.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    names = {path.name for path in uploaded.iterdir()}
    assert {"actors", "cluster", "learner", "rewards"} <= names
    assert not names & {".venv", ".git", "runs", "tests"}
