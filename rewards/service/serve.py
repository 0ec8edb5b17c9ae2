"""`python -m rewards.service.serve --reward NAME [--port N ...]`: put a reward behind gRPC."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import CliImplicitFlag

from rewards.catalog import entry
from rewards.config import (
    AestheticConfig,
    AlignmentConfig,
    ClipConfig,
    DistributionConfig,
    JpegConfig,
    RewardConfig,
    VlmConfig,
)
from rewards.flags import FLAGS, mistakes, parse

USER_ERROR = 2
WATCH_SECONDS = 0.1


class Arguments(BaseModel):
    """--reward NAME [--key VALUE ...]: serve a reward to trainers (rewards.kind = grpc) until SIGTERM.

    The keys with a dot are those of the trainer's [rewards] section. A server keeps one model and scores one request
    after another; for more, start more servers and name them all in the trainer's rewards.endpoints.
    """

    model_config = FLAGS

    reward: str = "compressibility"
    """A reward of the catalogue (`rewards/catalog.py`), or `python:module:function` for one of your own."""
    host: str = "127.0.0.1"
    """Address to listen on; any but a loopback one needs TLS, and a token or client certificates."""
    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_queue: int = Field(default=32, ge=0, le=1000)
    """Requests that may wait while one is scored; more are told to come again later."""
    max_message_mb: int = Field(default=64, ge=1, le=2000)
    """Largest message in either direction, and most that a request's images may take when decoded, in MiB."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest that a request waits and runs; while one runs longer, health is NOT_SERVING."""
    drain_s: float = Field(default=30.0, ge=0)
    """After SIGTERM, how long running requests may go on."""
    merge_count: int = Field(default=1, ge=1)
    """Requests that may be scored as one call, to fill a big model. More than 1 gives up that equal runs have equal
    digests, since which requests meet depends on time and a batch's composition on rounding."""
    merge_ms: float = Field(default=50.0, ge=0)
    """Longest that a request waits for others to be merged with, in milliseconds."""
    tls_cert: str = ""
    """PEM file of the server's certificate, with its chain."""
    tls_key: str = ""
    """PEM file of its key."""
    client_ca: str = ""
    """PEM file of an authority that clients must have a certificate of (mutual TLS)."""
    token_env: str = ""
    """Environment variable that holds the bearer token that clients must bring."""
    insecure_public: CliImplicitFlag[bool] = False
    """Listen on any address without TLS, token or client certificates: whoever reaches it may use it."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images of a request that are scored at once; none is all of them."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the model; none leaves it to the library."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, …"""
    jpeg: JpegConfig = JpegConfig()
    clip: ClipConfig = ClipConfig()
    aesthetic: AestheticConfig = AestheticConfig()
    vlm: VlmConfig = VlmConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    distribution: DistributionConfig = DistributionConfig()

    @property
    def config(self) -> RewardConfig:
        """What the trainer's section would say of a reward in its own workers."""
        keys = {name: getattr(self, name) for name in RewardConfig.model_fields if name in type(self).model_fields}
        return RewardConfig.model_validate(keys | {"name": self.reward, "threads": self.threads or 1})

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Arguments:
        from rewards.service.auth import is_loopback

        guarded = self.tls_cert and (self.token_env or self.client_ca)
        if not (is_loopback(self.host) or guarded or self.insecure_public):
            raise ValueError(
                f"host {self.host} can be reached from elsewhere: give --tls-cert and --tls-key, and --token-env "
                "or --client-ca, or --insecure-public on a network where everyone may use the model"
            )
        return self


def read_arguments(words: Sequence[str]) -> tuple[Arguments, RewardConfig]:
    """From flags to what they mean.

    Raises:
        ValueError: an unknown key or an impossible value, one line each.
    """
    arguments = parse(Arguments, words)
    try:
        return arguments, arguments.config
    except ValidationError as error:
        raise ValueError(mistakes(error, renamed={"name": "reward"})) from error


def serve(arguments: Arguments, config: RewardConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # read when torch is imported

    from rewards.service.auth import read_token, server_credentials
    from rewards.service.server import RewardServer, ServerOptions, bracketed
    from rewards.worker import RewardWorker, build_reward

    options = ServerOptions(
        host=arguments.host,
        port=arguments.port,
        max_queue=arguments.max_queue,
        max_message_mb=arguments.max_message_mb,
        timeout_s=arguments.timeout_s,
        merge_count=arguments.merge_count,
        merge_seconds=arguments.merge_ms / 1000,
        token=read_token(arguments.token_env) if arguments.token_env else "",
        credentials=server_credentials(arguments.tls_cert, arguments.tls_key, arguments.client_ca),
    )
    reward, features = build_reward(config), bool(entry(config.name).combine)
    server = RewardServer(reward, RewardWorker(reward, config.batch_size, features), features, options)
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda given, _frame: received.append(given))
    address = f"{bracketed(arguments.host)}:{server.port}"
    print(f"serving {reward.name} on {address}, provenance {reward.provenance}", flush=True)
    while not received:
        time.sleep(WATCH_SECONDS)
        server.watch()
    left = server.drain(arguments.drain_s)
    print(f"stopped; {left} requests were cut off" if left else "stopped", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when the server was told to stop, 2 when something the user gave is wrong."""
    try:
        serve(*read_arguments(sys.argv[1:] if argv is None else argv))
        return 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: it would wait for the thread of a call that hangs in a model.
    os._exit(code)
