"""A run on disk, in files that open without this project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learner.command_line import load_preset
from learner.config import RunConfig
from learner.run_folder import RunFolder, grid


def record(version: int, reward: float = 0.0) -> dict[str, float]:
    return {"version": version, "reward_mean": reward}


def versions(path: Path) -> list[int]:
    return [json.loads(line)["version"] for line in path.read_text().splitlines()]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run that wrote four rounds and half of a line."""
    folder = RunFolder(tmp_path / "runs" / "a", RunConfig(), None)
    folder.evaluation(0, np.zeros(2), {})
    for version in range(1, 5):
        folder.metrics(record(version))
        folder.journal({"task": version})
    folder.evaluation(4, np.ones(2), {})
    folder.close()
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"version": 5, "rew')
    return folder.path


def test_a_resume_forgets_what_came_after_its_checkpoint(killed: Path) -> None:
    folder = RunFolder(killed, RunConfig(), resumed_version=2)
    folder.metrics(record(3, reward=7.0))
    folder.close()
    assert versions(killed / "metrics.jsonl") == [1, 2, 3]
    assert json.loads((killed / "metrics.jsonl").read_text().splitlines()[-1])["reward_mean"] == 7.0
    assert list(folder.evaluations()) == [0]


def test_a_resume_keeps_the_journal(killed: Path) -> None:
    RunFolder(killed, RunConfig(), resumed_version=2).close()
    assert len((killed / "ledger.jsonl").read_text().splitlines()) == 4


def test_nothing_is_left_behind_beside_the_files(killed: Path) -> None:
    RunFolder(killed, RunConfig(), resumed_version=2).close()
    assert {path.name for path in killed.iterdir()} == {
        *("config.toml", "metrics.jsonl", "evaluation.jsonl", "ledger.jsonl", "tensorboard")
    }


@pytest.mark.parametrize("preset", ["compressibility", "sd15-incompressibility"])
def test_the_configuration_comes_back_as_it_was(tmp_path: Path, preset: str) -> None:
    config = RunConfig.model_validate(load_preset(preset))
    RunFolder(tmp_path, config, None).close()
    assert RunConfig.model_validate(load_preset(str(tmp_path / "config.toml"))) == config


def test_a_failed_evaluation_reward_stays_no_number(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RunConfig(), None)
    folder.evaluation(3, np.array([1.5, np.nan, 2.5]), {"a": np.array([3.0, np.nan, 5.0]), "b": np.full(3, np.nan)})
    folder.close()
    (line,) = (tmp_path / "evaluation.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "version": 3,
        "mean": 2.0,
        "rewards": [1.5, None, 2.5],
        "by_reward": {"a": [3.0, None, 5.0], "b": [None, None, None]},
    }
    np.testing.assert_array_equal(folder.evaluations()[3], [1.5, np.nan, 2.5])


def test_a_grid_shows_images_row_by_row_a_white_pixel_apart(tmp_path: Path) -> None:
    images = np.zeros((5, 3, 4, 6), np.uint8)
    images[:, 0] = np.arange(5, dtype=np.uint8)[:, None, None] * 10
    sheet = np.asarray(grid(images, columns=3))
    assert sheet.shape == (9, 20, 3)
    for place in range(5):
        row, column = divmod(place, 3)
        part = sheet[row * 5 : row * 5 + 4, column * 7 : column * 7 + 6]
        np.testing.assert_array_equal(part, images[place].transpose(1, 2, 0))
    assert (sheet[4] == 255).all()
    assert (sheet[:, [6, 13]] == 255).all()
    assert (sheet[5:, 14:] == 255).all(), "the place of a sixth"
    assert grid(images[:2], columns=8).size == (13, 4)


def test_images_are_saved_as_they_are(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RunConfig(), None)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 5), np.uint8)
    folder.images("round-000001", 1, image, [{"prompt": "a fox", "reward": 2.5}])
    folder.close()
    with Image.open(tmp_path / "samples" / "round-000001.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), image[0].transpose(1, 2, 0))
    assert json.loads((tmp_path / "samples" / "round-000001.json").read_text()) == {
        "version": 1,
        "columns": 1,
        "gap": 1,
        "width": 5,
        "height": 5,
        "samples": [{"prompt": "a fox", "reward": 2.5}],
    }
