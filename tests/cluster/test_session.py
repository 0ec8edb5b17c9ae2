"""Joining and starting a Ray, and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.pool import ClusterError
from cluster.session import open_cluster

HOLD_A_CLUSTER = """
import sys, time
from cluster.config import ClusterConfig
from cluster.pool import WorkerSpec
from cluster.session import open_cluster
from tests.cluster.workers import build
with open_cluster(ClusterConfig(dashboard=False, object_store_mb=100)) as cluster:
    cluster.start(WorkerSpec("sampler", build, num=1))
    cluster.ready(60)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def web_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def refusal(address: str) -> str:
    began = time.monotonic()
    with pytest.raises(ClusterError) as raised, open_cluster(ClusterConfig(address=address)):
        pass
    assert time.monotonic() - began < 5
    return str(raised.value)


def test_an_address_where_nothing_listens_is_refused_with_the_cure() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"no Ray cluster answers at {address}" in refusal(address)


def test_the_dashboards_port_is_told_from_the_clusters(web_server: str) -> None:
    assert "is a web server" in refusal(web_server)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "localhost"])
def test_an_address_of_another_kind_is_refused_with_the_cure(address: str) -> None:
    assert "give HOST:PORT" in refusal(address)


JOIN_A_CLUSTER = """
from cluster.config import ClusterConfig
from cluster.pool import WorkerSpec
from cluster.session import open_cluster
from tests.cluster.workers import build
with open_cluster(ClusterConfig()) as cluster:
    pool = cluster.start(WorkerSpec("sampler", build, num=1))
    pool.submit(0, "double", 21)
    (done,) = cluster.wait(60)
    assert cluster.get(done.outputs[0], 10) == 42
"""


@pytest.mark.ray
def test_a_ray_that_was_joined_is_left_running(ray_session: None) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    subprocess.run(
        [sys.executable, "-c", JOIN_A_CLUSTER], env={**os.environ, "RAY_ADDRESS": address}, check=True, timeout=60
    )
    assert ray.cluster_resources()


@pytest.mark.ray
def test_sigterm_ends_the_program_and_all_that_it_started() -> None:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        program = subprocess.Popen(
            [sys.executable, "-c", HOLD_A_CLUSTER],
            stdout=subprocess.PIPE,
            env={**environment, "HOME": home, "RAY_TMPDIR": home},
            text=True,
        )
        assert program.stdout
        with program.stdout:
            assert program.stdout.readline() == "ready\n"
            started = psutil.Process(program.pid).children(recursive=True)
            assert {"gcs_server", "raylet"} <= {process.name() for process in started}
            program.send_signal(signal.SIGTERM)
            assert program.wait(20) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(started, timeout=10)
        assert alive == []


def test_a_sigterm_handler_of_the_program_stays_in_force() -> None:
    def handler(signum: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with open_cluster(ClusterConfig(kind="local")):
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
