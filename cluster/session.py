"""Join or start a cluster, and leave it as it was found."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from cluster.config import ClusterConfig
from cluster.local import LocalCluster
from cluster.pool import Cluster, ClusterError

_PROBE_S = 3.0
# A session's sockets must fit into 107 bytes, and their part below this folder takes about 70 of them.
_TEMP_DIR_MAX = 30

_log = logging.getLogger(__name__)


@contextmanager
def open_cluster(config: ClusterConfig) -> Iterator[Cluster]:
    """The cluster that ``config`` describes, for the length of a ``with`` block.

    However the block ends, SIGTERM and SIGINT included, the workers are ended, a Ray started here is stopped,
    and a Ray that was joined is left running. A SIGTERM handler set before or within the block stays in force;
    without one, SIGTERM raises ``SystemExit(143)`` in the block.

    Ray is imported here and not before, since some of its settings are read on import.

    Raises:
        ClusterError: no Ray could be joined or started; the message names the cure.
    """
    if config.kind == "local":
        cluster = LocalCluster()
        try:
            yield cluster
        finally:
            cluster.close()
        return
    with _own_sigterm():
        ray_cluster = _open_ray(config)
        try:
            yield ray_cluster
        finally:
            ray_cluster.close()


def _open_ray(config: ClusterConfig) -> Cluster:
    address = config.address or os.environ.get("RAY_ADDRESS")
    handler = signal.getsignal(signal.SIGTERM)
    if address and address != "auto":
        _probe(address)
    try:
        joined = "ray" in sys.modules and _is_connected()
        if not joined:
            _join(config, address) if address else _start(config)
    finally:
        # Ray puts in a handler of its own; its exit status would be 15, and a program's own handler be gone.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)

    import ray

    from cluster.remote import RayCluster

    return RayCluster(
        fixed_size=not (joined or address),
        on_close=(lambda: None) if joined else ray.shutdown,
    )


def _start(config: ClusterConfig) -> None:
    """Start a Ray that only this machine can reach, and only with this user's token."""
    # Ray's switch for single machines: every address is 127.0.0.1, where it would else listen on the network.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray's default for a Ray of one's own; said aloud, since later processes guess it from what files exist.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _python_path():
        _init(
            f"Ray could not be started on this machine (its logs: {_temp_dir() or '/tmp/ray'}/session_latest/logs)",
            config,
            address="local",
            include_dashboard=config.dashboard,
            object_store_memory=config.object_store_mb * 2**20,
            _temp_dir=_temp_dir(),
        )


def _join(config: ClusterConfig, address: str) -> None:
    _init(
        f"could not join the Ray cluster at {address}; it has to have the same versions of Ray and Python and the same "
        "RAY_AUTH_MODE, and this machine has to be one of its nodes (from outside: `ray job submit`)",
        config,
        address=address,
    )


def _init(failure: str, config: ClusterConfig, **settings: Any) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        context = ray.init(logging_level=logging.WARNING, log_to_driver=config.worker_output, **settings)
    except (RuntimeError, ValueError, OSError, RayError) as error:
        ray.shutdown()
        cause = " ".join(str(error).split())
        raise ClusterError(f"{failure}: {cause}") from error
    except BaseException:  # a signal while starting
        ray.shutdown()
        raise
    _log.info("connected to Ray %s at %s", ray.__version__, ray.get_runtime_context().gcs_address)
    if context.dashboard_url:
        hint = " (`ray get-auth-token` prints its token)" if os.environ.get("RAY_AUTH_MODE") == "token" else ""
        _log.info("dashboard: http://%s%s", context.dashboard_url, hint)


def _is_connected() -> bool:
    import ray

    return ray.is_initialized()


def _probe(address: str) -> None:
    """Find within seconds what Ray would wait half a minute for, and then not name.

    Raises:
        ClusterError: nothing, or something else than a Ray cluster, answers at the address.
    """
    if "://" in address:
        _refuse(address, "is not the address of a cluster but of its dashboard or client server")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        _refuse(address, "is not HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # The control store speaks HTTP/2 only, whose frames begin otherwise.
            answer = connection.recv(5)
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}): start one there (`ray start --head`), correct "
            "RAY_ADDRESS or cluster.address, or unset it to start Ray on this machine"
        ) from error
    if answer.startswith(b"HTTP/"):
        _refuse(address, "is a web server, probably the dashboard of Ray")


def _refuse(address: str, reason: str) -> NoReturn:
    raise ClusterError(
        f"the Ray address {address} {reason}: give HOST:PORT of the cluster, whose port is 6379 as a rule, "
        "or submit this program with `RAY_ADDRESS=http://HOST:8265 ray job submit --working-dir . -- …`"
    )


def _temp_dir() -> str | None:
    """Where Ray keeps its session: None, its own choice, unless TMPDIR would make that too long for its sockets."""
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or ""
    return f"/tmp/ray-{os.getuid()}" if len(base) > _TEMP_DIR_MAX else None


@contextmanager
def _python_path() -> Iterator[None]:
    """Let workers of a Ray that starts now import what this program can, wherever it was started from."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path or os.getcwd() for path in sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Within the block SIGTERM unwinds the stack instead of ending the process on the spot."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _exit:
            signal.signal(signal.SIGTERM, before)


def _exit(signum: int, frame: object) -> NoReturn:
    del frame
    raise SystemExit(128 + signum)
