"""A run on disk: everything a user looks at, in files that open without this project."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from jaxtyping import Float, UInt8
from PIL import Image
from torch.utils.tensorboard.writer import SummaryWriter

from learner.config import RunConfig

GRID_COLUMNS = 8


class RunFolder:
    """`runs/NAME/`: configuration, metrics, image grids, evaluation rewards, ledger journal, summary."""

    def __init__(self, path: Path, config: RunConfig, resumed_version: int | None) -> None:
        """Make the folder, or take an existing one up where version `resumed_version` left it."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if resumed_version is not None:
            for name in ("metrics.jsonl", "evaluation.jsonl"):
                _keep_lines(path / name, resumed_version)
        _replace(path / "config.toml", tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
        self._board = SummaryWriter(str(path / "tensorboard"), purge_step=resumed_version)

    def metrics(self, record: dict[str, Any]) -> None:
        """One line of `metrics.jsonl` and the same numbers as TensorBoard scalars."""
        _append(self.path / "metrics.jsonl", record)
        for name, value in record.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(name, value, record["version"])
        self._board.flush()

    def evaluation(
        self, version: int, rewards: Float[np.ndarray, " sample"], by_label: Mapping[str, Float[np.ndarray, " sample"]]
    ) -> None:
        """One line of `evaluation.jsonl`: what is trained on, and each reward's own values."""
        record = {
            "version": version,
            "mean": mean_of(rewards),
            "rewards": numbers(rewards),
            "by_reward": {label: numbers(values) for label, values in by_label.items()},
        }
        _append(self.path / "evaluation.jsonl", record)
        for name, values in {"reward": rewards, **{f"reward/{label}": v for label, v in by_label.items()}}.items():
            if np.isfinite(values).any():
                self._board.add_scalar(f"evaluation/{name}_mean", mean_of(values), version)

    def evaluations(self) -> dict[int, Float[np.ndarray, " sample"]]:
        """Rewards of every evaluation of this run, by version."""
        records = list(_lines(self.path / "evaluation.jsonl"))
        return {record["version"]: np.array(record["rewards"], dtype=np.float64) for record in records}

    def images(
        self, name: str, version: int, images: UInt8[np.ndarray, "sample 3 height width"], samples: list[dict[str, Any]]
    ) -> None:
        """Save a grid as `samples/NAME.png`, and beside it, as JSON, what is known of each of its samples."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        grid(images).save(folder / f"{name}.png")
        _, _, height, width = images.shape
        place = {
            "version": version,
            "columns": min(GRID_COLUMNS, len(images)),
            "gap": 1,
            "width": width,
            "height": height,
        }
        _replace(folder / f"{name}.json", json.dumps({**place, "samples": samples}, indent=1) + "\n")

    def journal(self, event: dict[str, Any]) -> None:
        """One line of `ledger.jsonl`, which only ever grows."""
        _append(self.path / "ledger.jsonl", event)

    def summary(self, record: dict[str, Any]) -> None:
        _replace(self.path / "summary.json", json.dumps(record, indent=2) + "\n")

    def close(self) -> None:
        self._board.close()


def numbers(values: Float[np.ndarray, " sample"]) -> list[float | None]:
    """As JSON holds them: null where there is none."""
    return [float(value) if np.isfinite(value) else None for value in values]


def mean_of(values: Float[np.ndarray, " sample"]) -> float | None:
    """Over those that are there."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else None


def grid(images: UInt8[np.ndarray, "sample 3 height width"], columns: int = GRID_COLUMNS) -> Image.Image:
    """Images in rows of `columns`, a white pixel apart."""
    count, _, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + 1) - 1, rows * (height + 1) - 1), "white")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet.paste(Image.fromarray(image.transpose(1, 2, 0)), (column * (width + 1), row * (height + 1)))
    return sheet


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSONL file; a last line cut off by a kill is passed over."""
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text("utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def _keep_lines(path: Path, last_version: int) -> None:
    """Forget what a killed run wrote after its newest checkpoint: it will be written again."""
    kept = [record for record in _lines(path) if record["version"] <= last_version]
    _replace(path, "".join(json.dumps(record) + "\n" for record in kept))


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.rename(path)
