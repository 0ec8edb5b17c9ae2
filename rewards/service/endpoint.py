"""One reward server as a client sees it, and the choice between several."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import grpc

from rewards.service import reward_pb2, reward_pb2_grpc
from rewards.service.auth import bearer
from rewards.service.protocol import PING_SECONDS, PROTOCOL, RETRY_AFTER, size_options

SHORTEST_REST, LONGEST_REST = 0.1, 5.0
"""Seconds that a server is left alone after a failure; each further one doubles them."""
LONGEST_ASKED = 30.0
"""Most seconds that a full server can have itself left alone for."""
SHUNNED_SECONDS = 600.0
"""How long a server that let a call run out of time is asked only where no other can be: each try may cost as much."""
DETERMINED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""What a server would say again to the same call."""


class Trouble(Exception):
    """Why a call brought no answer."""

    def __init__(
        self, reason: str, final: bool = False, timed_out: bool = False, retry_after: float | None = None
    ) -> None:
        """One line that begins with the address; whether this server would say the same again; whether the time ran
        out; seconds that the server asked to be left alone for."""
        super().__init__(reason)
        self.reason, self.final, self.timed_out, self.retry_after = reason, final, timed_out, retry_after


class Endpoint:
    """A channel to one server. To be used in the process that made it; its counts belong to `Endpoints`."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, token: str, max_message_mb: int
    ) -> None:
        self.address = address
        options = [
            *size_options(max_message_mb),
            ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", PING_SECONDS * 1000),
            ("grpc.http2.max_pings_without_data", 0),  # a call may run for minutes without a byte
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 2000),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),  # a proxy would see the token of a call to this machine
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if credentials:
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)
        self._metadata = bearer(token)
        self.outstanding = 0
        self.rest = 0.0
        self.rests_until = 0.0
        self.shunned_until = 0.0

    def describe(self, seconds: float) -> Callable[[], reward_pb2.DescribeResponse]:
        """Ask what it is, at once; what comes back waits for the answer, and raises Trouble where there is none."""
        request = reward_pb2.DescribeRequest(protocol=PROTOCOL)
        call = self._stub.Describe.future(request, timeout=seconds, metadata=self._metadata)

        def answer() -> reward_pb2.DescribeResponse:
            try:
                return call.result()
            except grpc.RpcError as error:
                raise self._trouble(error) from error

        return answer

    def score(self, request: reward_pb2.ScoreRequest, seconds: float) -> reward_pb2.ScoreResponse:
        """Ask for scores, and wait.

        Raises:
            Trouble: there is no answer.
        """
        try:
            return self._stub.Score(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._trouble(error) from error

    def close(self) -> None:
        self._channel.close()

    def _trouble(self, error: Any) -> Trouble:
        code, details = error.code(), " ".join((error.details() or "").split())
        pause = str(dict(error.trailing_metadata() or ()).get(RETRY_AFTER, ""))
        too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
        return Trouble(
            f"{self.address}: {code.name}: {details}",
            final=code in DETERMINED or too_large,
            timed_out=code is grpc.StatusCode.DEADLINE_EXCEEDED,
            retry_after=int(pause) / 1000 if re.fullmatch(r"[0-9]{1,6}", pause) else None,
        )


class Endpoints:
    """Servers of one reward. May be used by several threads."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._all = tuple(endpoints)
        self._lock = threading.Lock()
        self._random = random.Random()  # of its own, so that calls leave no trace in a seeded run
        # Workers do not all begin at the same server.
        self._turn = self._random.randrange(len(self._all))

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def take(self, deadline: float, without: Collection[str]) -> Endpoint | None:
        """The one with the fewest calls of ours, the next in turn among equals; waits while all rest.

        Args:
            deadline: on the clock of `time.monotonic`; None comes back where all rest for longer.
            without: addresses that are not to be asked.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                allowed = [endpoint for endpoint in self._all if endpoint.address not in without]
                ready = [endpoint for endpoint in allowed if endpoint.rests_until <= now]
                if now >= deadline:
                    return None
                if ready:
                    self._turn += 1
                    turned = [ready[(self._turn + place) % len(ready)] for place in range(len(ready))]
                    chosen = min(turned, key=lambda endpoint: (endpoint.shunned_until > now, endpoint.outstanding))
                    chosen.outstanding += 1
                    return chosen
                wakes = min((endpoint.rests_until for endpoint in allowed), default=math.inf)
                # Those that wait for the same server do not come back all at once.
                wakes = now + (wakes - now) * self._random.uniform(1, 1.3)
            if wakes >= deadline:
                return None
            time.sleep(max(wakes - now, 0.001))

    def give_back(self, endpoint: Endpoint, trouble: Trouble | None) -> None:
        """The call has ended. A failing server rests, twice as long each time; a full one as long as it asked for."""
        with self._lock:
            endpoint.outstanding -= 1
            if trouble is None:
                endpoint.rest = endpoint.shunned_until = 0.0
                return
            now = time.monotonic()
            if trouble.timed_out:
                endpoint.shunned_until = now + SHUNNED_SECONDS
            if trouble.retry_after is not None:
                pause = min(trouble.retry_after, LONGEST_ASKED)
            else:
                pause = endpoint.rest = min(max(2 * endpoint.rest, SHORTEST_REST), LONGEST_REST)
            endpoint.rests_until = max(endpoint.rests_until, now + pause * self._random.uniform(1, 1.5))
