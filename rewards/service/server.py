"""A reward behind gRPC: what is asked is checked, scored in turn, and answered or refused with a reason."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rewards.reward import Reward
from rewards.service import reward_pb2, reward_pb2_grpc
from rewards.service.auth import TokenCheck
from rewards.service.parts import to_wire, unpacked
from rewards.service.protocol import (
    MAX_SAMPLES,
    MIB,
    PING_SECONDS,
    PROTOCOL,
    RETRY_AFTER,
    other_protocol,
    size_options,
)
from rewards.service.scoring import Door, Scorer
from rewards.worker import RewardWorker

SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
SPARE_THREADS = 8
"""For refusing, describing and health while all others wait for scores."""
SHORTEST_RETRY, LONGEST_RETRY = 0.05, 5.0
"""Seconds that a client is told to stay away."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server listens, and how much it takes on."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    max_queue: int = 32
    """Calls that may wait while one is scored."""
    max_message_mb: int = 64
    timeout_s: float = 120.0
    """Longest that a call waits and runs."""
    merge_count: int = 1
    merge_seconds: float = 0.0
    token: str = ""
    credentials: grpc.ServerCredentials | None = None


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """The two calls of `reward.proto`."""

    def __init__(self, reward: Reward, features: bool, scorer: Scorer, door: Door, options: ServerOptions) -> None:
        self._reward, self._features, self._scorer, self._door = reward, features, scorer, door
        self._options = options

    def Describe(
        self, request: reward_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> reward_pb2.DescribeResponse:
        _agree(request.protocol, context)
        return reward_pb2.DescribeResponse(
            protocol=PROTOCOL, reward=self._reward.name, provenance=self._reward.provenance, features=self._features
        )

    def Score(self, request: reward_pb2.ScoreRequest, context: grpc.ServicerContext) -> reward_pb2.ScoreResponse:
        _agree(request.protocol, context)
        if request.reward != self._reward.name:
            text = f"this server's reward is {self._reward.name!r}, not {request.reward!r}"
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
        if not 1 <= len(request.samples) <= MAX_SAMPLES:
            text = f"{len(request.samples)} samples; 1 to {MAX_SAMPLES} are allowed"
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        if not self._door.enter():
            self._turn_away(context)
        try:
            return self._answer(request, context)
        finally:
            self._door.leave()

    def _turn_away(self, context: grpc.ServicerContext) -> NoReturn:
        if self._door.closed:
            _abort(context, grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        # By then about half of those inside are gone.
        seconds = self._scorer.seconds_per_call * self._door.inside / 2
        pause = min(max(seconds, SHORTEST_RETRY), LONGEST_RETRY)
        context.set_trailing_metadata(((RETRY_AFTER, str(round(pause * 1000))),))
        text = f"the server is full: {self._door.inside} calls are scored or waiting"
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _answer(self, request: reward_pb2.ScoreRequest, context: grpc.ServicerContext) -> reward_pb2.ScoreResponse:
        remaining = context.time_remaining()
        seconds = self._options.timeout_s if remaining is None else min(remaining, self._options.timeout_s)
        deadline = time.monotonic() + seconds
        parts, places, results = unpacked(request, self._options.max_message_mb * MIB)
        if parts:
            future = self._scorer.submit(parts, deadline)
            if not context.add_callback(lambda: _cancel(future)):
                future.cancel()  # already over
            try:
                scored = future.result(timeout=max(deadline - time.monotonic(), 0))
            except (CancelledError, FutureTimeoutError):
                future.cancel()
                _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"not scored within {seconds:.1f} s")
            except Exception as error:  # noqa: BLE001 - the reward is the user's code
                _abort(context, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            for result, part in zip(scored, places, strict=True):
                for place, wire in zip(part, to_wire(result), strict=True):
                    results[place] = wire
        return reward_pb2.ScoreResponse(
            protocol=PROTOCOL,
            reward=self._reward.name,
            provenance=self._reward.provenance,
            task_id=request.task_id,
            results=[results[place] for place in range(len(request.samples))],
        )


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text)
    raise AssertionError("abort raises")


def _cancel(future: Future[Any]) -> None:
    future.cancel()


def _agree(protocol: int, context: grpc.ServicerContext) -> None:
    if protocol != PROTOCOL:
        _abort(context, grpc.StatusCode.FAILED_PRECONDITION, other_protocol(PROTOCOL, protocol))


def bracketed(host: str) -> str:
    """As it stands before a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


class RewardServer:
    """A listening server; once drained it is done with."""

    def __init__(self, reward: Reward, worker: RewardWorker, features: bool, options: ServerOptions) -> None:
        """Starts to listen.

        Raises:
            ValueError: the port is taken, or the host is not this machine's.
        """
        self._options = options
        self._scorer = Scorer(worker, options.merge_count, options.merge_seconds)
        self._door = Door(options.max_queue + 1)
        threads = options.max_queue + 1 + SPARE_THREADS
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="call"),
            interceptors=[TokenCheck(options.token)] if options.token else [],
            options=[
                *size_options(options.max_message_mb),
                ("grpc.so_reuseport", 0),  # else a second server on the port would silently take half of the calls
                ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_SECONDS * 500),
            ],
            # Beyond this gRPC itself refuses, so that nothing queues for a thread for long.
            maximum_concurrent_rpcs=2 * threads + 64,
        )
        servicer = RewardServicer(reward, features, self._scorer, self._door, options)
        reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        address = f"{bracketed(options.host)}:{options.port}"
        try:
            if options.credentials:
                self.port = self._server.add_secure_port(address, options.credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ValueError(f"cannot listen on {address}; is the port taken, the host this machine's?") from error
        self._server.start()
        self._healthy: bool | None = None
        self.watch()

    def watch(self) -> None:
        """Tell whoever asks for the health that a call is running for longer than any may."""
        healthy = self._scorer.busy_seconds <= self._options.timeout_s
        if healthy != self._healthy:
            self._healthy = healthy
            serving = health_pb2.HealthCheckResponse
            for service in ("", SERVICE):
                self._health.set(service, serving.SERVING if healthy else serving.NOT_SERVING)

    def drain(self, seconds: float) -> int:
        """Take nothing new, finish what runs, end. Returns how many calls were cut off after `seconds`."""
        self._door.close()
        self._health.enter_graceful_shutdown()
        self._door.wait_empty(seconds)
        left = self._door.inside
        # The last answers are still on their way out.
        self._server.stop(grace=0 if left else 1).wait(2)
        return left
