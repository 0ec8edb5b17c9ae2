"""Prompt sets, and which prompt and which noise belong to which sample.

Both are seeded and addressed by id, so a cursor through them is a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from actors.prompt_files import read_prompt_file
from actors.shipped_prompts import shipped_names, shipped_prompts


class Stream(IntEnum):
    """Independent uses of the run's seed."""

    NOISE = 0
    PROMPTS = 1
    EVALUATION = 2
    LORA = 3
    MINIBATCHES = 4
    CHECK = 5


def stream_seed(run_seed: int, stream: Stream, *ids: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments (all >= 0)."""
    words = np.random.SeedSequence((run_seed, int(stream), *ids)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Which prompt the n-th sample of a run is drawn for."""

    prompts: tuple[str, ...]
    images_per_prompt: int
    run_seed: int

    def prompt(self, sample: int) -> str:
        """Every pass over the set is a fresh permutation, so all prompts come equally often."""
        turn, place = divmod(sample // self.images_per_prompt, len(self.prompts))
        return self.prompts[_permutation(self.run_seed, turn, len(self.prompts))[place]]

    def batch(self, task_id: int, size: int) -> tuple[str, ...]:
        """Prompts of a training task, whose samples are numbered `task_id * size` onwards."""
        return tuple(self.prompt(task_id * size + index) for index in range(size))

    def seeds(self, task_id: int, size: int) -> tuple[int, ...]:
        """Noise seeds of a training task."""
        return tuple(stream_seed(self.run_seed, Stream.NOISE, task_id, index) for index in range(size))


@cache
def _permutation(run_seed: int, turn: int, length: int) -> tuple[int, ...]:
    generator = np.random.default_rng(stream_seed(run_seed, Stream.PROMPTS, turn))
    return tuple(int(place) for place in generator.permutation(length))


@dataclass(frozen=True, slots=True)
class PromptSet:
    """What the images of a run are asked to show."""

    prompts: tuple[str, ...]
    """In the order of the source; one that stands there twice is drawn twice as often."""
    metadata: Mapping[str, Mapping[str, Any]]
    """Plain JSON values by prompt, such as `questions` and `answers`; empty for a prompt that has none."""

    def metadata_of(self, prompts: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
        """Of each prompt in turn."""
        return tuple(self.metadata.get(prompt, {}) for prompt in prompts)


def load_prompts(source: str, template: str, limit: int | None) -> PromptSet:
    """A shipped set by name, else a user's file; `template` goes round each name of a shipped set of names.

    Raises:
        ValueError: no such set or file, or something wrong in it; the message names the cure.
    """
    prompts, metadata = shipped_prompts(source, template) or _of_file(source)
    if not prompts:
        raise ValueError(f"prompts.source: {source} holds no prompt; write one a line")
    used = tuple(prompts[:limit])
    return PromptSet(used, {prompt: metadata.get(prompt, {}) for prompt in used})


def _of_file(source: str) -> tuple[list[str], dict[str, dict[str, Any]]]:
    path = Path(source)
    try:
        return read_prompt_file(path.expanduser())
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder for the ~
        shipped = ", ".join(shipped_names())
        raise ValueError(
            f"prompts.source: {path} is no readable file and no shipped set (shipped: {shipped})"
        ) from error
