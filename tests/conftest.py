"""What tests of several packages share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.session import open_cluster


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for the whole run; inside, ``open_cluster`` joins it and ends only the workers of its own block."""
    patch = pytest.MonkeyPatch()
    # Short, for the sockets; apart from the user's, for the token.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as home:
        patch.setenv("HOME", home)
        patch.setenv("RAY_TMPDIR", home)
        patch.delenv("RAY_ADDRESS", raising=False)
        # Ray's default lets anything else on the machine go first, and the tests wait.
        patch.setenv("RAY_worker_niceness", "0")
        # A dead node is called dead after 3 s, not 15.
        for name in ("initial_delay_ms", "period_ms", "timeout_ms"):
            patch.setenv(f"RAY_health_check_{name}", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        with open_cluster(ClusterConfig(dashboard=False, object_store_mb=200)):
            yield
        patch.undo()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Stable Diffusion that draws 16x16 images in milliseconds."""
    from tests.tiny_model import save_tiny_model  # diffusers takes seconds to import

    return save_tiny_model(tmp_path_factory.mktemp("model"))
