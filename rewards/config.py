"""The rewards section of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RewardsConfig(BaseModel):
    """What images are scored by, and by how many workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Literal["compressibility", "incompressibility"] = "compressibility"
    """Reward to train on."""
    num: int = Field(default=1, ge=1)
    """Reward workers; results do not depend on it."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """Quality that the JPEG rewards encode at."""
    num_cpus: float = Field(default=0.0, ge=0.0)
    """CPUs that Ray reserves for each reward worker; 0 lets it share them."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """GPUs that Ray reserves for each reward worker."""
