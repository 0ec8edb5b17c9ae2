"""Servers to talk to: real ones in processes of their own, and ones that misbehave."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from rewards.config import RewardConfig
from rewards.jpeg import compressibility
from rewards.reward import Scores
from rewards.service import reward_pb2 as pb
from rewards.service import reward_pb2_grpc
from rewards.service.protocol import PROTOCOL

REPOSITORY = Path(__file__).parents[3]
PROVENANCE = "made by a test"


def config(*endpoints: str, name: str = "compressibility", **keys: Any) -> RewardConfig:
    """The section of a trainer that asks these servers."""
    return RewardConfig.model_validate(
        {"name": name, "kind": "grpc", "endpoints": endpoints, "timeout_s": 10.0, **keys}
    )


def pictures(count: int = 3, size: int = 16, seed: int = 0) -> np.ndarray:
    """Noise of growing contrast, so that no two are worth the same."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, size, size))
    return (noise * np.linspace(5, 60, count).reshape(-1, 1, 1, 1) + 128).clip(0, 255).astype(np.uint8)


def locally(images: np.ndarray) -> np.ndarray:
    """What the reward says of them without any server."""
    return np.asarray(compressibility(RewardConfig())(images, [""] * len(images), [{}] * len(images)).values)


def asked(reward: Callable[..., Scores], images: np.ndarray) -> Scores:
    return reward(images, ["a cat"] * len(images), [{}] * len(images))


def request(samples: Sequence[pb.Sample], **keys: Any) -> pb.ScoreRequest:
    return pb.ScoreRequest(**{"protocol": PROTOCOL, "reward": "compressibility", "samples": samples, **keys})


def raw(image: np.ndarray, **keys: Any) -> pb.Sample:
    """A sample with a [3, height, width] image."""
    pixels = image.transpose(1, 2, 0)
    return pb.Sample(raw=pb.RawImage(height=len(pixels), width=pixels.shape[1], rgb=pixels.tobytes()), **keys)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    first_line: str

    @property
    def stub(self) -> reward_pb2_grpc.RewardServiceStub:
        return reward_pb2_grpc.RewardServiceStub(grpc.insecure_channel(self.address))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(*flags: str, env: dict[str, str] | None = None, module: str = "rewards.service.serve") -> Iterator[Served]:
    """`python -m rewards.service.serve` with these flags, ready."""
    command = [sys.executable, "-m", module, *flags]
    if "--port" not in flags:
        command += ["--port", "0"]
    environment = {**os.environ, **(env or {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY)
    assert process.stdout is not None
    late = threading.Timer(60, process.kill)
    late.start()
    try:
        line = process.stdout.readline()
        match = re.match(r"serving \S+ on (\S+:\d+), provenance ", line)
        assert match, f"said {line!r} instead of being ready"
        yield Served(process, match[1], line)
    finally:
        late.cancel()
        process.kill()
        process.wait(10)
        process.stdout.close()


Answer = Callable[[pb.ScoreRequest, grpc.ServicerContext], pb.ScoreResponse]


def good_answer(asked: pb.ScoreRequest, **keys: Any) -> pb.ScoreResponse:
    """One for each sample; parts of it can be replaced by wrong ones."""
    results = [pb.Result(status=pb.STATUS_OK, value=place) for place in range(len(asked.samples))]
    right = {"protocol": PROTOCOL, "reward": asked.reward, "provenance": PROVENANCE, "task_id": asked.task_id}
    return pb.ScoreResponse(**{**right, "results": results, **keys})


class Misbehaving(reward_pb2_grpc.RewardServiceServicer):
    """Describes itself like a good server and answers as it was told to."""

    def __init__(self, answer: Answer, **described: Any) -> None:
        self.answer, self.calls = answer, 0
        self._described = {"protocol": PROTOCOL, "reward": "compressibility", "provenance": PROVENANCE, **described}

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(**self._described)

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        self.calls += 1
        return self.answer(request, context)


@contextmanager
def misbehaving(
    answer: Answer = lambda asked, _: good_answer(asked), **described: Any
) -> Iterator[tuple[str, Misbehaving]]:
    """Address and servicer of a server in this process."""
    servicer = Misbehaving(answer, **described)
    server = grpc.server(ThreadPoolExecutor(8))
    reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait(5)
