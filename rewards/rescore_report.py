"""Two rewards of the same samples, side by side: a table, and a plot against the policy's version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

HEADER = "version  kind            n  failed    mean old    mean new  correlation"


@dataclass(frozen=True, slots=True)
class Rescored:
    """One saved sample with its old and its new reward; a line of RUN/rescores/NAME.jsonl."""

    version: int
    kind: Literal["round", "evaluation"]
    index: int
    """Place in the grid."""
    prompt: str
    reward: float | None
    """The run's own."""
    rewards: dict[str, float | None]
    """The run's own, by label."""
    value: float | None
    """The new one; none where the status is not ok."""
    status: str
    detail: str
    provenance: str
    """Of the new one."""


Pairs = Float[np.ndarray, "pair 2"]


def row(records: Sequence[Rescored]) -> str:
    """The table's line for one grid. Means and correlation are over the `n` samples that have both rewards."""
    return _row(str(records[0].version), records[0].kind, records)


def overall(records: Sequence[Rescored]) -> str:
    """The table's last line."""
    return _row("all", "", records)


def save_plot(records: Sequence[Rescored], called: str, path: Path) -> str:
    """Draw mean old and new reward against version; returns the path, or how to get what drawing needs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no plot: matplotlib is not installed; pip install 'ddpo-ray[plots]'"
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for kind, style in (("round", "o-"), ("evaluation", "s--")):
        means = [(version, *pairs(grid).mean(axis=0)) for version, grid in _by_version(records, kind)]
        for column, axis in enumerate(axes, start=1):
            if means:
                axis.plot([mean[0] for mean in means], [mean[column] for mean in means], style, label=kind)
    for axis, label in zip(axes, ("reward of the run", called), strict=True):
        axis.set_ylabel(f"mean {label}", parse_math=False)
        axis.grid(alpha=0.3)
    if axes[0].lines:
        axes[0].legend()
    axes[1].set_xlabel("policy version")
    figure.savefig(path, dpi=150)
    return str(path)


def pairs(records: Sequence[Rescored]) -> Pairs:
    """Old and new reward of the samples that have both."""
    both = [(record.reward, record.value) for record in records if None not in (record.reward, record.value)]
    return np.array(both, dtype=np.float64).reshape(-1, 2)


def correlation(paired: Pairs) -> float:
    """Pearson's; NaN for fewer than two samples or where one reward is the same for all."""
    if len(paired) < 2 or (paired == paired[0]).all(axis=0).any():
        return float("nan")
    return float(np.corrcoef(paired.T)[0, 1])


def _row(version: str, kind: str, records: Sequence[Rescored]) -> str:
    paired = pairs(records)
    old, new = paired.mean(axis=0) if len(paired) else (float("nan"), float("nan"))
    failed = sum(record.value is None for record in records)
    numbers = f"{_number(old):>10}  {_number(new):>10}  {_number(correlation(paired)):>11}"
    return f"{version:>7}  {kind:<10}  {len(paired):>5}  {failed:>6}  {numbers}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def _by_version(records: Sequence[Rescored], kind: str) -> list[tuple[int, list[Rescored]]]:
    """Grids of one kind that have pairs at all."""
    of_kind = [record for record in records if record.kind == kind]
    grouped = [(version, list(group)) for version, group in groupby(of_kind, key=lambda record: record.version)]
    return [(version, grid) for version, grid in grouped if len(pairs(grid))]
