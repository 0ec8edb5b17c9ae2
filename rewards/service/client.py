"""A reward that asks servers: the `Reward` of kind = grpc."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping, Sequence

from rewards.catalog import entry
from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores, Status
from rewards.service import reward_pb2
from rewards.service.answers import WrongAnswer, all_failed, read_scores
from rewards.service.auth import channel_credentials, is_loopback, read_token
from rewards.service.endpoint import Endpoint, Endpoints, Trouble
from rewards.service.images import encode
from rewards.service.protocol import MAX_SAMPLES, MIB, PROTOCOL, other_protocol

SHARE_OF_TIMEOUT = 0.9
"""Of `timeout_s`, so that the answer, or why there is none, is there before the worker is given up."""
PATIENCE = 20.0
"""Most seconds to wait for a first server at the start, and a half of `timeout_s` at most."""
PATIENCE_WITH_OTHERS = 3.0
"""Seconds to wait for the remaining ones when one has answered."""
PAUSE = 0.3
TLS_TROUBLE = re.compile(r"certificate|handshake|\bSSL|\bTLS|WRONG_VERSION", re.IGNORECASE)


class RemoteReward:
    """Asks the server with the fewest of our calls, and another where one fails, until the time is used up."""

    def __init__(self, config: RewardConfig, endpoints: Endpoints, provenance: str) -> None:
        self._config, self._endpoints, self._provenance = config, endpoints, provenance
        self._features = bool(entry(config.name).combine)
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def provenance(self) -> str:
        """That of the servers."""
        return self._provenance

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        """Scores, or for each image why there is none; what fails on the way is no exception."""
        request = reward_pb2.ScoreRequest(
            protocol=PROTOCOL,
            reward=self.name,
            task_id=next(self._numbers),
            samples=encode(images, prompts, metadata),
            one_by_one=True,
        )
        limit = self._config.grpc.max_message_mb
        if request.ByteSize() > limit * MIB or len(request.samples) > MAX_SAMPLES:
            reason = (
                f"{len(request.samples)} images of together {request.ByteSize() / MIB:.1f} MiB are more than a "
                f"request's {MAX_SAMPLES} or grpc.max_message_mb = {limit}; lower batch_size, or raise the latter here "
                "and at the servers"
            )
            return all_failed(len(images), self._features, Status.FAILED, reason)
        return self._ask(request, time.monotonic() + SHARE_OF_TIMEOUT * self._config.timeout_s)

    def close(self) -> None:
        """Close all connections."""
        for endpoint in self._endpoints:
            endpoint.close()

    def _ask(self, request: reward_pb2.ScoreRequest, deadline: float) -> Scores:
        troubles: dict[str, Trouble] = {}
        hopeless: set[str] = set()
        while (endpoint := self._endpoints.take(deadline, hopeless)) is not None:
            answer = self._tried(endpoint, request, deadline)
            self._endpoints.give_back(endpoint, answer if isinstance(answer, Trouble) else None)
            if isinstance(answer, Scores):
                return answer
            troubles[endpoint.address] = answer
            if answer.final:
                hopeless.add(endpoint.address)
        if not troubles:
            reason = f"all servers rest after failures: {', '.join(self._config.endpoints)}"
            return all_failed(len(request.samples), self._features, Status.FAILED, reason)
        timed_out = any(trouble.timed_out for trouble in troubles.values())
        reason = "; ".join(trouble.reason for trouble in troubles.values())
        status = Status.TIMED_OUT if timed_out else Status.FAILED
        return all_failed(len(request.samples), self._features, status, reason)

    def _tried(self, endpoint: Endpoint, request: reward_pb2.ScoreRequest, deadline: float) -> Scores | Trouble:
        try:
            response = endpoint.score(request, max(deadline - time.monotonic(), 0.001))
            return read_scores(response, request, self._provenance, self._features)
        except Trouble as trouble:
            return trouble
        except WrongAnswer as error:
            return Trouble(f"{endpoint.address}: {error}", final=True)


def build(config: RewardConfig) -> RemoteReward:
    """Connect to the servers and see that they are what is expected. To be called in the process that will ask them.

    Raises:
        ValueError: no server can be reached, one refuses us, is of another reward, or they differ from one another.
    """
    grpc_config = config.grpc
    for address in config.endpoints:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdecimal()) or "/" in address:
            raise ValueError(f"endpoint {address!r} is not HOST:PORT")
        if grpc_config.token_env and not grpc_config.ca and not is_loopback(host):
            raise ValueError(f"the token is not sent to {address} without TLS; give grpc.ca")
    token = read_token(grpc_config.token_env) if grpc_config.token_env else ""
    credentials = None
    if grpc_config.ca:
        credentials = channel_credentials(grpc_config.ca, grpc_config.certificate, grpc_config.key)
    size = grpc_config.max_message_mb
    endpoints = Endpoints([Endpoint(address, credentials, token, size) for address in dict.fromkeys(config.endpoints)])
    try:
        return RemoteReward(config, endpoints, _agreed_provenance(config, _describe(config, endpoints)))
    except BaseException:
        for endpoint in endpoints:
            endpoint.close()
        raise


def _describe(config: RewardConfig, endpoints: Endpoints) -> dict[str, reward_pb2.DescribeResponse]:
    """What each server that can be reached says of itself."""
    began = time.monotonic()
    patience = min(PATIENCE, config.timeout_s / 2)
    described: dict[str, reward_pb2.DescribeResponse] = {}
    silent: dict[str, str] = {}
    while True:
        missing = [endpoint for endpoint in endpoints if endpoint.address not in described]
        answers = {endpoint.address: endpoint.describe(min(3.0, patience)) for endpoint in missing}
        for address, answer in answers.items():
            try:
                described[address] = answer()
            except Trouble as trouble:
                cure = _cure(config, trouble.reason.removeprefix(address))
                if trouble.final or cure:
                    raise ValueError(f"reward server {trouble.reason}{cure}") from trouble
                silent[address] = trouble.reason
        waited = time.monotonic() - began
        if len(described) == len(endpoints) or (described and waited > PATIENCE_WITH_OTHERS):
            return described
        if waited > patience:
            reasons = "; ".join(silent.values())
            cure = f"start one: python -m rewards.service.serve --reward {config.name} --port PORT"
            if "Socket closed" in reasons or "reset" in reasons:
                cure = "something there hangs up: does it want TLS (grpc.ca), or a certificate (grpc.certificate)?"
            raise ValueError(f"reward {config.called}: no server answers within {patience:g} s ({reasons}); {cure}")
        time.sleep(PAUSE)


def _cure(config: RewardConfig, reason: str) -> str:
    if "UNAUTHENTICATED" in reason:
        variable = config.grpc.token_env
        return f"; {variable} holds another token than the server's" if variable else "; give grpc.token_env"
    if "UNIMPLEMENTED" in reason:
        return "; this is no reward server"
    return "; look at grpc.ca, grpc.certificate and grpc.key" if TLS_TROUBLE.search(reason) else ""


def _agreed_provenance(config: RewardConfig, described: Mapping[str, reward_pb2.DescribeResponse]) -> str:
    features = bool(entry(config.name).combine)
    first, agreed = next(iter(described.items()))
    for address, its in described.items():
        if its.protocol != PROTOCOL:
            raise ValueError(f"reward server {address}: {other_protocol(its.protocol, PROTOCOL)}")
        if its.reward != config.name:
            raise ValueError(f"reward server {address} serves {its.reward!r}, and the reward here is {config.name!r}")
        if its.features != features:
            kind = "features" if its.features else "values"
            raise ValueError(f"reward server {address} answers {kind}; install the same release of ddpo-ray on both")
        if its.provenance != agreed.provenance:
            raise ValueError(
                f"the reward servers differ: {first} is {agreed.provenance!r}, {address} is {its.provenance!r}"
            )
    return agreed.provenance
