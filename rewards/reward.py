"""The contract of a reward: what it is asked, what it answers, and that a failure is never a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Images = UInt8[np.ndarray, "batch 3 height width"]

Metadata = Mapping[str, Any]
"""What a prompt file says of a prompt besides its text: plain JSON values; empty where it says nothing."""


class Status(str, Enum):
    """How the scoring of one sample ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INVALID = "invalid"
    """Scored, but with something that is no finite number."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a reward says of a batch."""

    values: Float[np.ndarray, " batch"] | Float[np.ndarray, "batch feature"]
    """One number per image; a reward of a whole round gives features instead, which its `combine` turns into numbers.
    What is not finite counts as invalid."""
    notes: tuple[str, ...] = ()
    """What the reward saw in each image, for people: a caption, an answer. Empty, or one per image."""
    failures: Mapping[int, tuple[Status, str]] = field(default_factory=dict)
    """Status and reason, by index, of images that this reward knows it could not score; their values are ignored."""


@runtime_checkable
class Reward(Protocol):
    """A score of images; the higher the better. The score of an image may not depend on its neighbours."""

    @property
    def name(self) -> str: ...

    @property
    def provenance(self) -> str:
        """All that the value depends on besides the image: settings, weights' digests, preprocessing, versions."""
        ...

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores: ...


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """The images of one task travel beside it, as an object of their own."""

    task_id: int
    prompts: tuple[str, ...]
    metadata: tuple[Metadata, ...]
    one_by_one: bool = False
    """Where a batch raises, score its images singly, so that one bad image does not take its neighbours along."""

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.metadata):
            raise ValueError(f"task {self.task_id}: {len(self.prompts)} prompts, {len(self.metadata)} metadata")


@dataclass(frozen=True, slots=True, eq=False)
class RewardResult:
    """Rewards of one task, in the order of its samples."""

    task_id: int
    reward: str
    provenance: str
    values: Float[np.ndarray, " batch"] | Float[np.ndarray, "batch feature"]
    """float32; NaN exactly where the status is not ok."""
    statuses: tuple[Status, ...]
    details: tuple[str, ...]
    """Why, where the status is not ok; else what the reward saw, if it says."""

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.values.ndim not in (1, 2):
            raise ValueError(f"reward {self.reward}: values are {self.values.dtype}{self.values.shape}, not float32[B]")
        if not len(self.values) == len(self.statuses) == len(self.details):
            raise ValueError(
                f"reward {self.reward}: {len(self.values)} values, {len(self.statuses)} statuses, "
                f"{len(self.details)} details"
            )
        for value, status in zip(self.values, self.statuses, strict=True):
            if bool(np.isfinite(value).all()) != (status is Status.OK) or np.isinf(value).any():
                raise ValueError(f"reward {self.reward}: value {value} with status {status.value}")
