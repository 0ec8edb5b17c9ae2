"""The contract of a reward: what it is asked, what it answers, and that a failure is never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Images = UInt8[np.ndarray, "batch 3 height width"]


class Status(str, Enum):
    """How the scoring of one sample ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INVALID = "invalid"
    """Scored, but with something that is no finite number."""


@runtime_checkable
class Reward(Protocol):
    """A score of images; the higher the better. The score of an image may not depend on its neighbours."""

    @property
    def name(self) -> str: ...

    @property
    def provenance(self) -> str:
        """All that the value depends on besides the image: settings, weights, versions."""
        ...

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[np.ndarray, " batch"]: ...


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """The images of one task travel beside it, as an object of their own."""

    task_id: int
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RewardResult:
    """Rewards of one task, in the order of its samples."""

    task_id: int
    reward: str
    provenance: str
    values: Float[np.ndarray, " batch"]
    """float32; NaN exactly where the status is not ok."""
    statuses: tuple[Status, ...]
    details: tuple[str, ...]
    """Why, where the status is not ok; else empty."""

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.values.ndim != 1:
            raise ValueError(f"reward {self.reward}: values are {self.values.dtype}{self.values.shape}, not float32[B]")
        if not len(self.values) == len(self.statuses) == len(self.details):
            raise ValueError(
                f"reward {self.reward}: {len(self.values)} values, {len(self.statuses)} statuses, "
                f"{len(self.details)} details"
            )
        for value, status in zip(self.values, self.statuses, strict=True):
            if (status is Status.OK) != bool(np.isfinite(value)) or np.isinf(value):
                raise ValueError(f"reward {self.reward}: value {value} with status {status.value}")
