"""Prompt sets, and which prompt and which noise belong to which sample.

Both are seeded and addressed by id, so a cursor through them is a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np


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


def load_prompts(source: str, template: str, limit: int | None) -> tuple[str, ...]:
    """A shipped set by name, else a text file, one prompt a line; blank lines and `#` comments are skipped.

    Raises:
        ValueError: no such set or file, not UTF-8, or nothing in it; the message names the cure.
    """
    shipped = resources.files("actors") / "prompt_sets" / f"{source}.txt"
    if source.isidentifier() and shipped.is_file():
        text, entries_are_names = shipped.read_text("utf-8"), True
    else:
        text, entries_are_names = _read_file(Path(source)), False
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise ValueError(f"prompts.source: {source} holds no prompt; write one a line")
    prompts = [fill(template, entry) for entry in entries] if entries_are_names else entries
    return tuple(prompts[:limit])


def _read_file(path: Path) -> str:
    known = sorted(p.name.removesuffix(".txt") for p in (resources.files("actors") / "prompt_sets").iterdir())
    try:
        return path.expanduser().read_text("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(
            f"prompts.source: {path} is no readable file and no shipped set (shipped: {', '.join(known)})"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts.source: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def fill(template: str, entry: str) -> str:
    """`a(n) {}` and `ant` give `an ant`; `a(n)` follows the first letter of what comes next."""
    article = "an" if entry[:1].lower() in "aeiou" else "a"
    return template.replace("a(n) {}", f"{article} {{}}").replace("{}", entry)
