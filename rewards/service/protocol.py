"""What both sides of the wire must agree on besides the messages."""

from __future__ import annotations

from rewards.reward import Status
from rewards.service import reward_pb2

PROTOCOL = 1
"""Version of the messages in `reward.proto`; a change that an older side would misread makes it one more."""
RETRY_AFTER = "retry-after-ms"
"""Trailing metadata of a server that is full: how many milliseconds to stay away."""
MAX_SAMPLES = 4096
"""Most samples of one request."""
MIB = 1 << 20

TO_WIRE = {
    Status.OK: reward_pb2.STATUS_OK,
    Status.FAILED: reward_pb2.STATUS_FAILED,
    Status.TIMED_OUT: reward_pb2.STATUS_TIMED_OUT,
    Status.INVALID: reward_pb2.STATUS_INVALID,
}
FROM_WIRE = {wire: status for status, wire in TO_WIRE.items()}

PING_SECONDS = 20
"""How often a client that waits for an answer asks whether the machine is still there; twice unanswered is gone."""


def size_options(max_message_mb: int) -> list[tuple[str, int]]:
    """gRPC's options for the largest message in either direction, in MiB."""
    size = max_message_mb * MIB
    return [("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)]


def other_protocol(server: int, client: int) -> str:
    """What to say where the two sides speak different versions."""
    return f"the server speaks protocol {server} and the client {client}; install the same release of ddpo-ray on both"
