"""From what several rewards say of each sample to the one number that is trained on; pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from rewards.reward import RewardResult, Status

Values = Float[np.ndarray, " sample"]
"""float32; NaN where there is none."""

Combine = Callable[[Float[np.ndarray, "sample feature"], Sequence[str]], Values]
"""Turns the features of a whole round into values."""


@dataclass(frozen=True, slots=True)
class Term:
    """One reward of the sum."""

    label: str
    weight: float = 1.0
    """0 for a reward that is only looked at."""
    scale: float | Literal["running"] = 1.0
    combine: Combine | None = None
    """For a reward of whole rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A reward's values for a round or an evaluation, in the order of its samples."""

    raw: Values
    normalised: Values
    """Divided by the reward's scale, not yet weighted."""
    reasons: Mapping[int, str]
    """Why there is no value, by index."""
    details: tuple[str, ...]
    """What the reward saw, or why it failed."""


@dataclass(slots=True)
class Spread:
    """Standard deviation of all values so far (Chan et al. 1983: joining counts, means and squared deviations)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    first: float = 1.0
    """The scale after the first evaluation: that of all evaluations, so that they compare."""

    def take_in(self, values: Values) -> None:
        found = values[np.isfinite(values)].astype(np.float64)
        if not len(found):
            return
        total, shift = self.count + len(found), float(found.mean()) - self.mean
        self.squares += float(((found - found.mean()) ** 2).sum()) + shift**2 * self.count * len(found) / total
        self.mean += shift * len(found) / total
        self.count = total

    @property
    def scale(self) -> float:
        """1 as long as no two values differ."""
        return (self.squares / self.count) ** 0.5 if self.squares > 0 else 1.0


@dataclass(slots=True)
class Mix:
    """The weighted sum, and the running scales of those terms that have one."""

    terms: tuple[Term, ...]
    spreads: dict[str, Spread] = field(default_factory=dict)

    def judge(
        self, term: Term, results: Sequence[RewardResult], prompts: Sequence[str], evaluated: int | None = None
    ) -> Judged:
        """One reward's results of all tasks of a round, or of the evaluation of version `evaluated`, in order.

        Rounds, and the evaluation of version 0, add to the running scale.
        """
        raw, reasons = joined(results, prompts, term.combine)
        scale = term.scale
        if scale == "running":
            spread = self.spreads.setdefault(term.label, Spread())
            if not evaluated:
                spread.take_in(raw)
            if evaluated == 0:
                spread.first = spread.scale
            scale = spread.scale if evaluated is None else spread.first
        normalised = (raw.astype(np.float64) / scale).astype(np.float32)
        named = {index: f"{term.label}: {reason}" for index, reason in reasons.items()}
        return Judged(raw, normalised, named, tuple(detail for result in results for detail in result.details))

    def total(self, judged: Mapping[str, Judged]) -> Values:
        """Σ weight · value / scale over the terms; NaN where a term that counts has no value."""
        parts = [term.weight * judged[term.label].normalised.astype(np.float64) for term in self.terms if term.weight]
        return np.sum(parts, axis=0).astype(np.float32)

    def record(self) -> dict[str, list[float]]:
        """The running scales as JSON can hold them."""
        return {label: [float(s.count), s.mean, s.squares, s.first] for label, s in self.spreads.items()}

    def resume(self, record: Mapping[str, Sequence[float]]) -> None:
        """Go on with recorded scales."""
        self.spreads = {label: Spread(int(count), *rest) for label, (count, *rest) in record.items()}


def joined(
    results: Sequence[RewardResult], prompts: Sequence[str], combine: Combine | None
) -> tuple[Values, dict[int, str]]:
    """Values of all samples and why some have none; a reward of whole rounds is worked out over those that are valid.

    Raises:
        ValueError: the results are not one per prompt.
    """
    statuses = [status for result in results for status in result.statuses]
    if len(statuses) != len(prompts):
        raise ValueError(f"{len(statuses)} rewards for {len(prompts)} samples")
    reasons = {index: status.value for index, status in enumerate(statuses) if status is not Status.OK}
    if combine is None:
        return np.concatenate([result.values for result in results]), reasons
    valid = [index for index, status in enumerate(statuses) if status is Status.OK]
    values = np.full(len(prompts), np.nan, np.float32)
    if valid:
        features = np.concatenate([result.values[np.array(_ok(result))] for result in results if any(_ok(result))])
        values[valid] = combine(features, [prompts[index] for index in valid])
    reasons |= {index: "has no value in this round" for index in valid if not np.isfinite(values[index])}
    return np.where(np.isfinite(values), values, np.float32(np.nan)), reasons


def _ok(result: RewardResult) -> list[bool]:
    return [status is Status.OK for status in result.statuses]
