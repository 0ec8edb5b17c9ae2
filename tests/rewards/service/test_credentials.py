"""Tokens and certificates, right and wrong, over real connections. The certificates are made by `cryptography`."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rewards.reward import Status
from rewards.service import reward_pb2 as pb
from rewards.service.auth import is_loopback
from rewards.service.client import build
from tests.rewards.service.servers import Served, asked, config, free_port, locally, pictures, serving

TOKEN = "a-long-enough-secret"


@dataclass(frozen=True)
class Authority:
    """Signs certificates into a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        object.__setattr__(self, "key", key)
        self._write(self.name, self._certificate(self.name, key, days=1, authority=True), key)

    @property
    def file(self) -> str:
        return str(self.folder / f"{self.name}.pem")

    def signed(self, name: str, days: float = 1) -> tuple[str, str]:
        """PEM files of a certificate for 127.0.0.1, which ends in `days`, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, self._certificate(name, key, days, authority=False), key)

    def _certificate(self, name: str, key: Any, days: float, authority: bool) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(self.key, hashes.SHA256())  # type: ignore[attr-defined]
        )

    def _write(self, name: str, certificate: x509.Certificate, key: Any) -> tuple[str, str]:
        pem = serialization.Encoding.PEM
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(pem, pkcs8, plain))
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


@pytest.fixture
def tls(authority: Authority) -> Iterator[Served]:
    certificate, key = authority.signed("server")
    with serving(
        *("--tls-cert", certificate, "--tls-key", key, "--client-ca", authority.file, "--token-env", "SERVER_TOKEN"),
        env={"SERVER_TOKEN": TOKEN},
    ) as server:
        yield server


def refusal(*endpoints: str, **keys: Any) -> str:
    """The one line that `build` raises, in little time."""
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:
        build(config(*endpoints, timeout_s=20.0, **keys))
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_with_token_and_certificates_all_is_well(
    tls: Served, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    certificate, key = authority.signed("client")
    whole = {"ca": authority.file, "certificate": certificate, "key": key, "token_env": "CLIENT_TOKEN"}
    reward = build(config(tls.address, grpc=whole))
    assert asked(reward, pictures()).values.tolist() == locally(pictures()).tolist()
    assert TOKEN not in tls.first_line + repr(reward.__dict__)

    assert "give grpc.token_env" in refusal(tls.address, grpc={**whole, "token_env": ""})
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN + "x")
    assert "CLIENT_TOKEN holds another token" in refusal(tls.address, grpc=whole)


def test_a_client_without_a_certificate_of_the_authority_is_refused(
    tls: Served, authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    for name, days, signer in (("stale", -1, authority), ("strange", 1, stranger)):
        certificate, key = signer.signed(name, days)
        with pytest.raises(ValueError, match=r"hangs up.*grpc\.certificate|certificate"):
            build(
                config(
                    tls.address,
                    timeout_s=2.0,
                    grpc={"ca": authority.file, "certificate": certificate, "key": key, "token_env": "CLIENT_TOKEN"},
                )
            )
    with pytest.raises(ValueError, match=r"hangs up.*grpc\.certificate|certificate"):
        build(config(tls.address, timeout_s=2.0, grpc={"ca": authority.file, "token_env": "CLIENT_TOKEN"}))
    with pytest.raises(ValueError, match=r"hangs up: does it want TLS \(grpc\.ca\)"):
        build(config(tls.address, timeout_s=2.0))


@pytest.mark.parametrize("trouble", ["expired", "strange"])
def test_a_server_whose_certificate_is_not_right_is_refused(
    trouble: str, authority: Authority, stranger: Authority
) -> None:
    certificate, key = authority.signed("expired", -1) if trouble == "expired" else stranger.signed("strange")
    with serving("--tls-cert", certificate, "--tls-key", key) as server:
        line = refusal(server.address, grpc={"ca": authority.file})
    assert "CERTIFICATE_VERIFY_FAILED" in line
    assert "look at grpc.ca" in line


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(authority: Authority) -> None:
    with serving() as server:
        assert "look at grpc.ca" in refusal(server.address, grpc={"ca": authority.file})


def test_the_token_guards_all_but_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("--token-env", "SERVER_TOKEN", env={"SERVER_TOKEN": TOKEN}) as server:
        assert "give grpc.token_env" in refusal(server.address)
        for metadata in ((), (("authorization", f"Bearer {TOKEN}x"),), (("authorization", TOKEN),)):
            for call, request in ((server.stub.Describe, pb.DescribeRequest()), (server.stub.Score, pb.ScoreRequest())):
                with pytest.raises(grpc.RpcError) as caught:
                    call(request, metadata=metadata, timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with grpc.insecure_channel(server.address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
        reward = build(config(server.address, grpc={"token_env": "CLIENT_TOKEN"}))
        assert not asked(reward, pictures()).failures


def test_a_token_that_is_changed_later_is_a_failure_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    port = str(free_port())
    flags = ("--port", port, "--token-env", "SERVER_TOKEN")
    with serving(*flags, env={"SERVER_TOKEN": TOKEN}) as server:
        reward = build(config(server.address, timeout_s=20.0, grpc={"token_env": "CLIENT_TOKEN"}))
    with serving(*flags, env={"SERVER_TOKEN": "another"}):
        failures = set(asked(reward, pictures()).failures.values())
    assert failures == {(Status.FAILED, f"{server.address}: UNAUTHENTICATED: wrong token or none")}


def test_the_token_goes_to_no_other_machine_in_the_clear(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    line = refusal("localhost:1", "10.1.2.3:50051", grpc={"token_env": "CLIENT_TOKEN"})
    assert line == "the token is not sent to 10.1.2.3:50051 without TLS; give grpc.ca"
    monkeypatch.delenv("CLIENT_TOKEN")
    assert "CLIENT_TOKEN is to hold" in refusal("localhost:1", grpc={"token_env": "CLIENT_TOKEN"})
    monkeypatch.setenv("CLIENT_TOKEN", "two\nlines")
    assert "cannot be sent" in refusal("localhost:1", grpc={"token_env": "CLIENT_TOKEN"})


@pytest.mark.parametrize("files", ["missing", "not pem", "another's key"])
def test_files_that_are_no_certificates_are_named(files: str, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.signed("right")
    ca = authority.file
    if files == "missing":
        ca = str(tmp_path / "none.pem")
    elif files == "not pem":
        ca = str(tmp_path / "text.pem")
        Path(ca).write_text("hello")
    else:
        _, key = authority.signed("another")
    grpc_config = {"ca": ca, "certificate": certificate, "key": key}
    line = refusal("localhost:1", grpc=grpc_config)
    assert line.startswith(ca if files != "another's key" else f"{certificate} and {key} are no PEM certificate with")


def test_what_stays_on_this_machine() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "[::]", "localhost.example.org", "", "x"))


def test_a_proxy_of_the_environment_sees_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    with serving() as server:
        assert not asked(build(config(server.address)), pictures()).failures
