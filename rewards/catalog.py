"""All rewards by name, in one table. A new reward is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

PYTHON_PREFIX = "python:"
"""`python:module:function` names a function of the user's own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a reward is found; named by strings, so that this table costs no import."""

    build: str
    """`module:function` that takes a `RewardConfig` and returns a `Reward`."""
    combine: str = ""
    """For a reward of a whole round: `module:function` that takes the features [N, D] and prompts of all samples and
    returns their values [N] float32, NaN where there is none. Importing that module loads numpy only."""


CATALOG: dict[str, Entry] = {
    "compressibility": Entry("rewards.jpeg:compressibility"),
    "incompressibility": Entry("rewards.jpeg:incompressibility"),
    "aesthetic": Entry("rewards.aesthetic:build"),
    "alignment": Entry("rewards.alignment:build"),
    "vqa": Entry("rewards.vqa:build"),
    "clip_score": Entry("rewards.clip_score:build_clip_score"),
    "pickscore": Entry("rewards.clip_score:build_pickscore"),
    "diversity": Entry("rewards.diversity:build", combine="rewards.diversity:combine"),
    "distribution_match": Entry("rewards.distribution_match:build", combine="rewards.distribution_match:combine"),
}


def is_known(name: str) -> bool:
    """Whether there is such a reward, as far as its name tells."""
    module, colon, function = name.removeprefix(PYTHON_PREFIX).partition(":")
    return name in CATALOG or (name.startswith(PYTHON_PREFIX) and bool(module and colon and function.isidentifier()))


def entry(name: str) -> Entry:
    """The table's line for a reward."""
    return Entry("rewards.python_function:build") if name.startswith(PYTHON_PREFIX) else CATALOG[name]


def found(place: str) -> Callable[..., Any]:
    """What `module:function` names."""
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)
