"""The samples that a run kept: grids of images, and beside each a JSON file that says what is in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from rewards.reward import Images

KINDS: tuple[Literal["round", "evaluation"], ...] = ("round", "evaluation")


class Sample(BaseModel):
    """One cell of a grid."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    metadata: dict[str, Any] = {}
    reward: FiniteFloat | None = None
    """What it was trained on; none where it had no reward."""
    rewards: dict[str, FiniteFloat | None] = {}
    """What each reward said of it, by label."""


class Sidecar(BaseModel):
    """What `samples/NAME.json` says of `samples/NAME.png`: cells in rows, `gap` pixels apart."""

    model_config = ConfigDict(frozen=True)

    version: int = Field(ge=0)
    columns: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    gap: int = Field(ge=0)
    samples: tuple[Sample, ...] = Field(min_length=1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole grid; a single row may be shorter than `columns`."""
        columns = min(self.columns, len(self.samples))
        rows = -(-len(self.samples) // columns)
        return columns * (self.width + self.gap) - self.gap, rows * (self.height + self.gap) - self.gap


@dataclass(frozen=True, slots=True)
class SavedGrid:
    """A round's or an evaluation's samples on disk."""

    kind: Literal["round", "evaluation"]
    path: Path
    """The picture."""
    sidecar: Sidecar

    def images(self) -> Images:
        """The cells, in the order of the samples.

        Raises:
            ValueError: the picture cannot be read or is of another size than its JSON says.
        """
        says, columns = self.sidecar, min(self.sidecar.columns, len(self.sidecar.samples))
        try:
            with Image.open(self.path) as file:
                if file.size != says.size:
                    raise ValueError(f"{file.width}x{file.height} pixels, {says.size[0]}x{says.size[1]} by its JSON")
                sheet = np.array(file.convert("RGB"))
        except FileNotFoundError as error:
            raise ValueError(f"{self.path} is missing, but its JSON is there; remove {self.path.stem}.json") from error
        except (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
            cure = f"remove {self.path.stem}.png and .json to go on without them"
            raise ValueError(f"{self.path} cannot be used ({error}); {cure}") from error
        places = (divmod(index, columns) for index in range(len(says.samples)))
        corners = ((row * (says.height + says.gap), column * (says.width + says.gap)) for row, column in places)
        cells = [sheet[top : top + says.height, left : left + says.width] for top, left in corners]
        return np.stack(cells).transpose(0, 3, 1, 2).copy()


def saved_grids(run: Path) -> list[SavedGrid]:
    """All grids of a run that have a JSON file, by version; the pictures are looked at too.

    Raises:
        ValueError: that is no run, it kept no such files, or one of them is damaged; one line.
    """
    if not (run / "config.toml").is_file():
        raise ValueError(f"{run} is no folder of a run: it has no config.toml; give the folder, like runs/NAME")
    grids = sorted(_found(run / "samples"), key=lambda grid: (grid.sidecar.version, KINDS.index(grid.kind)))
    if not grids:
        raise ValueError(
            f"{run}/samples has no JSON files beside its grids: the run is older than they are, or kept no samples; "
            "make it again with this release"
        )
    for grid in grids:
        grid.images()  # before hours of scoring, not in the middle
    return grids


def _found(samples: Path) -> Iterator[SavedGrid]:
    for kind in KINDS:
        for path in samples.glob(f"{kind}-*.json"):
            try:
                sidecar = Sidecar.model_validate_json(path.read_bytes())
            except ValidationError as error:
                mistake = error.errors()[0]
                what = f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}".removeprefix(": ")
                cure = f"remove {path.stem}.png and .json to go on without them"
                raise ValueError(f"{path} is damaged ({what}); {cure}") from error
            yield SavedGrid(kind, path.with_suffix(".png"), sidecar)
