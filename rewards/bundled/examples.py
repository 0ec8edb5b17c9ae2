"""Reads the work folder: real pictures, the same through the autoencoder, and pictures that the generator drew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

STYLE_WORDS = {
    "fluent-3d": "3d",
    "fluent-flat": "flat",
    "noto": "noto",
    "noto-v1": "android",
    "fxemoji": "mozilla",
    "twemoji": "twitter",
    "emojione": "emojione",
    "streamline": "streamline",
}
"""The word for each drawing style in captions such as "a fox, 3d style"."""
SHARES = {"pictures": 0.25, "reconstructions": 0.3, "samples-20": 0.2, "samples-8": 0.25}
"""How much of a batch comes from each file. The generator's are softer than any drawing, and what is judged later."""
HELD_OUT_EVERY = 4
FIELDS = ("animals", "styles", "names")


def caption_of(animal: str, style: str = "") -> str:
    """``"a fox"``, or ``"a fox, 3d style"`` with a style of :data:`STYLE_WORDS`."""
    plain = f"{'an' if animal[0] in 'aeiou' else 'a'} {animal}"
    return f"{plain}, {STYLE_WORDS[style]} style" if style else plain


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures of known animals."""

    pixels: Tensor
    """uint8 ``[N, 64, 64, 3]``."""
    animals: list[str]
    styles: list[str]
    """Empty where nobody knows: the generator mixes styles as it likes."""
    names: list[str]
    """What the picture set calls a drawing; empty for a generated one."""

    def images(self, rows: Tensor | None = None) -> Tensor:
        """Float32 ``[B, 3, 64, 64]`` in [-1, 1], as both processors make it of a 64-pixel picture."""
        chosen = self.pixels if rows is None else self.pixels[rows]
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1

    def at(self, rows: list[int]) -> Examples:
        """Those at ``rows``."""
        parts = (self.animals, self.styles, self.names)
        return Examples(self.pixels[rows], *([part[row] for row in rows] for part in parts))


def load(work: Path, name: str) -> Examples:
    """The pictures of ``NAME.npz`` that show an animal."""
    if not (work / f"{name}.npz").exists():
        raise SystemExit(f"{work}: no {name}.npz; make it as the model card says")
    entries = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    rows = [row for row, entry in enumerate(entries) if entry["animal"]]
    pixels = torch.from_numpy(np.load(work / f"{name}.npz")["pixels"][rows])
    parts = [[entries[row].get(key, "") for row in rows] for key in ("animal", "style", "name")]
    return Examples(pixels, *parts)


def split(examples: Examples) -> tuple[Examples, Examples]:
    """Pictures to learn from, and those of drawings held out: every fourth of the drawings that are faces.

    Their animals are also drawn whole, so that nothing is lost; generated pictures are never held out here.
    """
    drawings = set(zip(examples.styles, examples.names, strict=True))
    faces = sorted(drawing for drawing in drawings if drawing[1].replace(" ", "-").endswith("-face"))
    chosen = set(faces[::HELD_OUT_EVERY])
    out = [drawing in chosen for drawing in zip(examples.styles, examples.names, strict=True)]
    learned, unseen = ([row for row, held in enumerate(out) if held is wanted] for wanted in (False, True))
    return examples.at(learned), examples.at(unseen)


class Batches:
    """Draws training batches: files by their share, every animal equally often."""

    def __init__(self, work: Path) -> None:
        parts = {name: split(load(work, name))[0] for name in SHARES}
        weights = []
        for name, part in parts.items():
            place = {animal: index for index, animal in enumerate(sorted(set(part.animals)))}
            labels = torch.tensor([place[animal] for animal in part.animals])
            weights.append(SHARES[name] / (len(place) * torch.bincount(labels)[labels]))
        self._weights = torch.cat(weights)
        pixels = torch.cat([part.pixels for part in parts.values()])
        texts = ([value for part in parts.values() for value in getattr(part, field)] for field in FIELDS)
        self.examples = Examples(pixels, *texts)
        self.animals = sorted(set(self.examples.animals))

    def draw(self, size: int, random: torch.Generator) -> Tensor:
        """Rows int64 ``[size]`` of ``examples``."""
        return torch.multinomial(self._weights, size, replacement=True, generator=random)
