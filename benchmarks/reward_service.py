"""How many requests one reward server answers, and whether any sample is lost or counted twice when it is killed.

    python -m benchmarks.reward_service [--kill] [--clients 64] [--requests 2000] [--images 4] [--size 64]

One server (compressibility) and all clients share this machine; each client has a connection of its own and asks as
soon as it has its answer; one request is a batch of `--images` images. `value` is requests a second over all clients,
`bound` the requests a second that one thread scores in this process without any server: the server scores in one thread
too, so nothing can be faster. With `--kill` the server is killed (SIGKILL) when half of the requests are answered, and
started again on the same port.

Prints one JSON line; exit code 1 when a sample is lost, counted twice or has another value than in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rewards.config import RewardConfig
from rewards.jpeg import compressibility
from rewards.reward import Scores
from rewards.service.client import RemoteReward, build

READY_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What a client got for a request."""

    request: int
    scores: Scores
    seconds: float


def start_server(port: int, places: int) -> subprocess.Popen[str]:
    """A server that is ready."""
    flags = ["--reward", "compressibility", "--port", str(port), "--max-queue", str(places)]
    command = [sys.executable, "-m", "rewards.service.serve", *flags]
    root = Path(__file__).parents[1]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert server.stdout is not None
    late = threading.Timer(READY_SECONDS, server.kill)
    late.start()
    line = server.stdout.readline()
    late.cancel()
    if not line.startswith("serving "):
        raise SystemExit("the server did not start")
    return server


def images_of(request: int, count: int, size: int) -> np.ndarray:
    """Noise of this request alone, so that an answer to another one is noticed: [count, 3, size, size] uint8."""
    noise = np.random.default_rng(request).normal(size=(count, 3, size // 4, size // 4)).repeat(4, 2).repeat(4, 3)
    return (noise * 40 + 128).clip(0, 255).astype(np.uint8)


def ask(client: RemoteReward, requests: dict[int, np.ndarray], began: threading.Barrier, answers: list[Answer]) -> None:
    """One client's requests, one after another; appending to a list is safe between threads."""
    began.wait(READY_SECONDS)
    for request, images in requests.items():
        start = time.perf_counter()
        scores = client(images, ["a cat"] * len(images), [{}] * len(images))
        answers.append(Answer(request, scores, time.perf_counter() - start))


def count(answers: list[Answer], expected: dict[int, np.ndarray]) -> dict[str, int]:
    """Samples that went wrong, by how."""
    images = len(next(iter(expected.values())))
    times = dict.fromkeys(expected, 0)
    wrong = lost = 0
    for answer in answers:
        times[answer.request] += 1
        lost += len(answer.scores.failures)
        right = np.asarray(answer.scores.values) == expected[answer.request]
        wrong += int((~right).sum()) - len(answer.scores.failures)
    return {
        "samples": images * len(expected),
        "samples_lost": lost + images * sum(of == 0 for of in times.values()),
        "samples_double": images * sum(max(of - 1, 0) for of in times.values()),
        "samples_wrong": wrong,
    }


def measure(clients: int, requests: int, images: int, size: int, kill: bool) -> dict[str, Any]:
    """The figures of one run."""
    work = {request: images_of(request, images, size) for request in range(requests)}
    reward = compressibility(RewardConfig())
    start = time.perf_counter()
    expected = {
        request: np.asarray(reward(batch, ["a cat"] * images, [{}] * images).values) for request, batch in work.items()
    }
    bound = requests / (time.perf_counter() - start)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = start_server(port, clients)
    config = RewardConfig.model_validate({"kind": "grpc", "endpoints": [f"127.0.0.1:{port}"], "timeout_s": 300.0})
    answers: list[Answer] = []
    began = threading.Barrier(clients + 1)
    try:
        with ThreadPoolExecutor(clients) as threads:
            connected = list(threads.map(lambda _: build(config), range(clients)))
            parts = [
                {request: work[request] for request in range(place, requests, clients)} for place in range(clients)
            ]
            running = [
                threads.submit(ask, client, part, began, answers) for client, part in zip(connected, parts, strict=True)
            ]
            began.wait(READY_SECONDS)
            start = time.perf_counter()
            if kill:
                while len(answers) < requests / 2:
                    time.sleep(0.002)
                server.kill()
                server.wait()
                server = start_server(port, clients)
            for client in running:
                client.result()
            seconds = time.perf_counter() - start
    finally:
        server.kill()
        server.wait()
    times = np.array([answer.seconds for answer in answers]) * 1000
    return {
        "value": round(requests / seconds, 1),
        "unit": "requests/s",
        "bound": round(bound, 1),
        "ratio": round(requests / seconds / bound, 3),
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p99_ms": round(float(np.percentile(times, 99)), 2),
        "requests_per_s": round(requests / seconds, 1),
        "images_per_s": round(requests * images / seconds, 1),
        **count(answers, expected),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("clients", 64), ("requests", 2000), ("images", 4), ("size", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle and start it again")
    given = parser.parse_args(argv)
    figures = measure(given.clients, given.requests, given.images, given.size, given.kill)
    line = {
        "benchmark": "reward_service" + ("_kill" if given.kill else ""),
        **figures,
        **vars(given),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("grpcio", "protobuf", "numpy", "pillow")},
    }
    print(json.dumps(line))
    return int(any(figures[key] for key in ("samples_lost", "samples_double", "samples_wrong")))


if __name__ == "__main__":
    sys.exit(main())
