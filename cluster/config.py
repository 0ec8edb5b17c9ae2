"""The cluster section of the configuration: where workers run, and how long to wait for what."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """Where workers run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ray", "local"] = "ray"
    """`ray`: one process per worker, on this machine or many. `local`: everything in this process, one call after
    the other, without Ray; slower, and easy to step through in a debugger. In one process nothing can end a call that
    takes too long, so time limits on calls hold on Ray only."""

    address: str | None = None
    """Ray cluster to join, as HOST:PORT, or `auto` for the one running on this machine. Not set: RAY_ADDRESS,
    which Ray itself sets in a submitted job; without that, a Ray of its own is started on this machine."""

    start_timeout_s: float = Field(default=180.0, gt=0)
    """Seconds that all workers together may take to start, loading their models included."""

    stall_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds without any result after which the run ends with a diagnosis instead of waiting on."""

    object_store_mb: int = Field(default=512, ge=80)
    """MB of shared memory for objects in flight; only for a Ray that is started here."""

    dashboard: bool = True
    """Start the Ray dashboard too; only for a Ray that is started here."""

    worker_output: bool = False
    """Show in this terminal what workers print. It is in Ray's log files and its dashboard either way."""
