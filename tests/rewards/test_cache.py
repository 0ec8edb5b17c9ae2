"""Scores on disk: the same ones again, by what they are scores of, and nothing that was no score."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.cache import FILE, cached
from rewards.reward import Scores, Status

ASK = tuple[np.ndarray, tuple[str, ...], tuple[Mapping[str, Any], ...]]


@dataclass
class Counting:
    """Scores an image by its first pixel and the number of the call, so that a second scoring would show."""

    provenance: str = "v1"
    judge: Callable[[np.ndarray], Scores] = Scores
    sizes: list[int] = field(default_factory=list)
    name: str = "counting"

    def __call__(self, images: np.ndarray, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Scores:
        self.sizes.append(len(images))
        return self.judge(images[:, 0, 0, 0].astype(np.float32) + np.float32(len(self.sizes)) / 10)


def ask(*pixels: int, prompt: str = "a cat", metadata: Mapping[str, Any] | None = None) -> ASK:
    images = np.array(pixels, np.uint8).reshape(-1, 1, 1, 1).repeat(3, 1).repeat(4, 2).repeat(4, 3)
    return images, (prompt,) * len(pixels), (metadata or {},) * len(pixels)


def f32(*values: float) -> list[float]:
    return np.array(values, np.float32).tolist()


def test_what_was_scored_is_not_scored_again_also_by_the_next_process(tmp_path: Path) -> None:
    inner = Counting(judge=lambda values: Scores(values, tuple(f"saw {value:.1f}" for value in values)))
    first = cached(inner, tmp_path)
    assert (first.name, first.provenance) == ("counting", "v1")
    one = first(*ask(1, 2))
    for reward in (first, cached(inner, tmp_path)):
        again = reward(*ask(2, 1))
        assert again.values.dtype == np.float32
        assert again.values.tolist() == one.values[::-1].tolist() == f32(2.1, 1.1)
        assert again.notes == ("saw 2.1", "saw 1.1")
    assert inner.sizes == [2]
    assert (first.hits, first.misses) == (2, 2)


@pytest.mark.parametrize(
    "other",
    [
        ask(2),
        ask(1, prompt="a dog"),
        ask(1, metadata={"count": 2}),
        (np.ascontiguousarray(ask(1)[0].reshape(1, 3, 2, 8)), *ask(1)[1:]),
    ],
    ids=["image", "prompt", "metadata", "shape"],
)
def test_all_that_a_score_depends_on_is_part_of_its_key(tmp_path: Path, other: ASK) -> None:
    inner = Counting()
    reward = cached(inner, tmp_path)
    reward(*ask(1))
    reward(*other)
    assert (inner.sizes, reward.hits) == ([1, 1], 0)
    cached(Counting("v2"), tmp_path)(*ask(1))
    new = Counting("v2")
    cached(new, tmp_path)(*ask(1))
    assert not new.sizes
    inner.provenance = "v3"
    reward(*ask(1))
    assert inner.sizes == [1, 1, 1]


def test_the_order_of_metadata_is_no_difference(tmp_path: Path) -> None:
    inner = Counting()
    reward = cached(inner, tmp_path)
    reward(*ask(1, metadata={"a": 1, "b": [2]}))
    reward(*ask(1, metadata={"b": [2], "a": 1}))
    assert inner.sizes == [1]


def test_a_call_with_one_unknown_image_is_scored_whole_and_known_ones_keep_their_value(tmp_path: Path) -> None:
    inner = Counting()
    reward = cached(inner, tmp_path)
    reward(*ask(1, 2))
    mixed = reward(*ask(1, 5, 2))
    assert inner.sizes == [2, 3]
    assert mixed.values.tolist() == f32(1.1, 5.2, 2.1)
    assert reward(*ask(5)).values.tolist() == f32(5.2)
    assert (reward.hits, reward.misses) == (3, 3)


def test_failures_and_what_is_no_number_are_not_kept(tmp_path: Path) -> None:
    def judge(values: np.ndarray) -> Scores:
        values = np.where(values // 1 == 3, np.nan, values).astype(np.float32)
        return Scores(values, failures={0: (Status.TIMED_OUT, "late")})

    inner = Counting(judge=judge)
    reward = cached(inner, tmp_path)
    assert dict(reward(*ask(1, 2, 3)).failures) == {0: (Status.TIMED_OUT, "late")}
    again = reward(*ask(2, 1, 3))
    assert inner.sizes == [3, 3], "a failure was kept"
    assert dict(again.failures) == {}, "the stored value of what fails now has not won"
    np.testing.assert_array_equal(again.values, np.array([2.1, 1.2, np.nan], np.float32))


def test_what_raises_goes_on_raising(tmp_path: Path) -> None:
    def judge(values: np.ndarray) -> Scores:
        raise RuntimeError("no")

    reward = cached(Counting(judge=judge), tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            reward(*ask(1))


def test_answers_of_a_wrong_length_are_passed_on_and_not_kept(tmp_path: Path) -> None:
    inner = Counting(judge=lambda values: Scores(values[:1]))
    reward = cached(inner, tmp_path)
    assert len(reward(*ask(1, 2)).values) == len(reward(*ask(1, 2)).values) == 1
    assert inner.sizes == [2, 2]


def test_features_come_back_bit_for_bit(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    inner = Counting(judge=lambda values: Scores(features[: len(values)]))
    many = np.arange(700, dtype=np.uint16).view(np.uint8).reshape(700, 2)
    images = np.zeros((700, 3, 4, 4), np.uint8)
    images[:, 0, 0, :2] = many
    asked = (images, ("",) * 700, ({},) * 700)
    cached(inner, tmp_path)(*asked)
    again = cached(inner, tmp_path)(*asked).values
    assert inner.sizes == [700]
    np.testing.assert_array_equal(again, features)


def test_a_reward_that_learns_its_provenance_while_it_scores(tmp_path: Path) -> None:
    inner = Counting("")

    def judge(values: np.ndarray) -> Scores:
        inner.provenance = "of the server"
        return Scores(values)

    inner.judge = judge
    reward = cached(inner, tmp_path)
    reward(*ask(1))
    assert reward(*ask(1)).values.tolist() == f32(1.1)
    unknown = Counting("")
    for _ in range(2):
        cached(unknown, tmp_path)(*ask(1))
    assert unknown.sizes == [1, 1], "a score of nobody knows what was taken from the cache"


def test_the_first_of_two_that_score_the_same_image_is_kept(tmp_path: Path) -> None:
    other = cached(Counting(), tmp_path)

    def judge(values: np.ndarray) -> Scores:
        other(*ask(1))
        return Scores(values + 5)

    slow = cached(Counting(judge=judge), tmp_path)
    slow(*ask(1, 2))
    assert slow(*ask(1, 2)).values.tolist() == f32(1.1, 7.1)


WRITE = """
import sys, numpy as np
from rewards.cache import cached
from rewards.config import RewardConfig
from rewards.worker import build_reward
reward = build_reward(RewardConfig(cache=sys.argv[1]))
noise = np.random.default_rng(0)
for turn in range(20):
    images = noise.integers(0, 256, (4, 3, 8, 8)).astype(np.uint8)
    reward(images, ("a cat",) * 4, ({},) * 4)
print(reward(images, ("a cat",) * 4, ({},) * 4).values.tolist(), reward.hits + reward.misses)
"""


def test_processes_share_a_folder_at_the_same_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in running]
    assert {code for _, _, code in ends} == {0}, ends
    assert len({out for out, _, _ in ends}) == 1
    with sqlite3.connect(tmp_path / "cache" / FILE) as database:
        assert database.execute("SELECT count(*) FROM scores").fetchone() == (80,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        cached(Counting(), tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"rewards.cache: {tmp_path / FILE} cannot be used (")
    assert "remove it" in str(caught.value)


@pytest.mark.parametrize("damage", ["X'0000C07F'", "X'00'"], ids=["NaN", "one byte"])
def test_a_damaged_value_is_one_clear_line_and_never_a_number(tmp_path: Path, damage: str) -> None:
    reward = cached(Counting(), tmp_path)
    reward(*ask(1))
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"UPDATE scores SET value = {damage}")
    with pytest.raises(ValueError, match=r"scores.sqlite cannot be used .*; .*remove it"):
        reward(*ask(1))


def test_a_place_where_no_folder_can_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"choose another rewards\.cache"):
        cached(Counting(), tmp_path / "file" / "cache")


def test_a_cache_that_cannot_be_written_costs_no_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reward = cached(Counting(), tmp_path)
    reward._database.execute("PRAGMA query_only=ON")  # as on a disk that was remounted read-only
    assert reward(*ask(1)).values.tolist() == f32(1.1)
    assert "was not written" in caplog.text
