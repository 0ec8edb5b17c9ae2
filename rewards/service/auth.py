"""Who may speak to whom: bearer tokens and certificates, for both sides."""

from __future__ import annotations

import hmac
import os
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

HEADER = "authorization"
OPEN_TO_ALL = "/grpc.health.v1.Health/"
"""Whoever watches over machines has no token."""


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(variable: str) -> str:
    """The bearer token from an environment variable.

    Raises:
        ValueError: it is not there, or nothing that can be sent.
    """
    token = os.environ.get(variable, "")
    if not token:
        raise ValueError(f"the environment variable {variable} is to hold the reward servers' token and is not set")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"the token in {variable} has characters that cannot be sent; use letters and digits")
    return token


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call; none without a token."""
    return ((HEADER, f"Bearer {token}"),) if token else ()


class TokenCheck(grpc.ServerInterceptor):
    """Lets calls pass that bring the token; asking for the server's health needs none."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        given = dict(handler_call_details.invocation_metadata or ()).get(HEADER, "")
        right = hmac.compare_digest(str(given).encode(), self._wanted)
        if right or handler_call_details.method.startswith(OPEN_TO_ALL):
            return continuation(handler_call_details)
        return self._refusal


def _refuse(_request: Any, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token or none")


def server_credentials(certificate: str, key: str, client_ca: str) -> grpc.ServerCredentials | None:
    """TLS for a server from PEM files; with `client_ca`, clients need a certificate too. None without files.

    Raises:
        ValueError: a file is missing or not what it should be.
    """
    if bool(certificate) != bool(key):
        raise ValueError("--tls-cert and --tls-key go together; give both or neither")
    if not certificate:
        if client_ca:
            raise ValueError("--client-ca needs --tls-cert and --tls-key: without them there is no TLS at all")
        return None
    pair = _read_pair(certificate, key)
    authority = _read_authority(client_ca) if client_ca else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=bool(client_ca))


def channel_credentials(ca: str, certificate: str, key: str) -> grpc.ChannelCredentials:
    """TLS for a client from PEM files; certificate and key may be empty.

    Raises:
        ValueError: a file is missing or not what it should be.
    """
    own_key, own_certificate = _read_pair(certificate, key) if certificate else (None, None)
    return grpc.ssl_channel_credentials(_read_authority(ca), own_key, own_certificate)


def _read_pair(certificate: str, key: str) -> tuple[bytes, bytes]:
    """Key and certificate; gRPC itself would say nothing of a wrong file until the first handshake, and then little."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:
        raise ValueError(f"{certificate} and {key} are no PEM certificate with its key: {error}") from error
    return Path(key).read_bytes(), Path(certificate).read_bytes()


def _read_authority(path: str) -> bytes:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{path} is no PEM file of an authority: {error}") from error
    return Path(path).read_bytes()
