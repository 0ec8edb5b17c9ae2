"""vqa: which answers count as right, and what has no answer has no number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.prompts import load_prompts
from rewards.config import RewardConfig
from rewards.reward import Status
from rewards.vlm import Answer, NoAnswer
from rewards.vqa import Vqa, build, contains, pairs
from tests.rewards.test_vlm_local import llava_by_hand
from tests.rewards.tiny_models import pictures, save_blip, save_llava

THREE_DOGS = {"questions": ["How many dogs?", "What animal?"], "answers": ["three", "dog"]}


@dataclass
class Says:
    """Answers by question and by the image's first pixel."""

    said: dict[str, Any]
    provenance: str = "made up"
    captions_only: bool = False
    sizes: list[int] = field(default_factory=list)

    def answers(self, images: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        assert len(images) == len(questions)
        self.sizes.append(len(images))
        answers = [self.said[question] for question in questions]
        return [a[int(i[0, 0, 0])] if isinstance(a, list) else a for a, i in zip(answers, images, strict=True)]


def images(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, 1).repeat(4, 2).repeat(4, 3)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("There are three dogs.", "three"),
        ("There are 3 dogs.", "three"),
        ("THREE", "3"),
        ("a black dog sits", "dog"),
        ("Dogs!", "dog"),
        ("two foxes", "fox"),
        ("There are twenty-one of them", "21"),
        ("There are 21", "twenty one"),
        ("a hummingbird (small)", "hummingbird"),
        ("it is a polar  bear", "polar bear"),
        ("12", "twelve"),
    ],
)
def test_right_answers(answer: str, expected: str) -> None:
    assert contains(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("an elephant", "ant"),
        ("it often rains", "ten"),
        ("There are 12 dogs", "1"),
        ("There are thirteen dogs", "three"),
        ("There are twenty-three dogs", "three"),
        ("a catfish", "cat"),
        ("", "cat"),
        ("a bear in a polar landscape", "polar bear"),
        ("a.b", "a b"),
        ("axb", "a.b"),
    ],
)
def test_wrong_answers(answer: str, expected: str) -> None:
    assert not contains(answer, expected)


def test_the_value_is_the_share_of_right_answers_and_the_note_what_was_said() -> None:
    vlm = Says({"How many dogs?": ["3 of them", "two", "Three."], "What animal?": ["a cat", "a cat", "dogs"]})
    scores = Vqa(vlm)(images(3), ("three dogs",) * 3, (THREE_DOGS,) * 3)
    assert np.asarray(scores.values).tolist() == [0.5, 0.0, 1.0]
    assert scores.notes == ("3 of them | a cat", "two | a cat", "Three. | dogs")
    assert not scores.failures
    assert max(vlm.sizes) == 3


def test_what_has_no_answer_has_no_number_and_costs_only_itself() -> None:
    late = NoAnswer(Status.TIMED_OUT, "no answer within 9 s")
    vlm = Says({"How many dogs?": ["3", late, "3"], "What animal?": ["dog", "dog", NoAnswer(Status.INVALID, "silent")]})
    scores = Vqa(vlm)(images(3), ("three dogs",) * 3, (THREE_DOGS,) * 3)
    assert scores.failures == {1: (Status.TIMED_OUT, "no answer within 9 s"), 2: (Status.INVALID, "silent")}
    assert scores.values[0] == 1.0
    assert np.isnan(scores.values[1:]).all()
    assert scores.notes == ("3 | dog", "dog", "3")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "no questions; use prompts.source = counting, or a .jsonl file"),
        ({"questions": [], "answers": []}, "no questions"),
        ({"questions": ["what?"]}, "not lists of as many texts"),
        ({"questions": ["what?"], "answers": ["a", "b"]}, "not lists of as many texts"),
        ({"questions": ["what?"], "answers": [3]}, "not lists of as many texts"),
        ({"questions": ["what?"], "answers": [" "]}, "not lists of as many texts"),
        ({"questions": "what?", "answers": "abcde"}, "not lists of as many texts"),
        ({"questions": 5, "answers": 5}, "not lists of as many texts"),
    ],
)
def test_a_prompt_without_questions_is_a_failure_with_a_cure(metadata: dict[str, Any], words: str) -> None:
    scores = Vqa(Says({"How many dogs?": "3", "What animal?": "dog"}))(images(2), ("", "x"), (metadata, THREE_DOGS))
    assert scores.failures.keys() == {0}
    assert scores.failures[0][0] is Status.INVALID
    assert words in scores.failures[0][1]
    assert np.isnan(scores.values[0])
    assert scores.values[1] == 1.0


def test_no_sample_with_questions_asks_nothing() -> None:
    vlm = Says({})
    assert len(Vqa(vlm)(images(2), ("a", "b"), ({}, {})).failures) == 2
    assert not vlm.sizes


def test_the_shipped_counting_prompts_can_be_asked() -> None:
    prompts = load_prompts("counting", "{}", None)
    for metadata in prompts.metadata_of(prompts.prompts):
        assert len(pairs(metadata)) == 2


def test_a_real_model_is_asked_each_question_about_its_own_image(tmp_path: Path) -> None:
    folder = save_llava(tmp_path)
    values = {"name": "vqa", "device": "cpu", "vlm": {"model": str(folder), "max_new_tokens": 8}}
    reward = build(RewardConfig.model_validate(values))
    questions = ["what is in this image ?", "how many animals are there ?"]
    shown = pictures(2)
    heard = [[llava_by_hand(folder, image, question) for question in questions] for image in shown]
    first = heard[0][0].split()[0]
    metadata = [
        {"questions": questions, "answers": [first, "elephant"]},
        {"questions": questions[1:], "answers": ["x"]},
    ]
    scores = reward(shown, ("a", "b"), metadata)
    assert scores.notes == (" | ".join(heard[0]), heard[1][1])
    assert np.asarray(scores.values).tolist() == [0.5, 0.0]
    assert "llava weights" in reward.provenance


def test_a_captioner_cannot_be_asked(tmp_path: Path) -> None:
    folder = save_blip(tmp_path)
    with pytest.raises(ValueError, match="only captions; vqa needs one that answers questions"):
        build(RewardConfig.model_validate({"name": "vqa", "device": "cpu", "vlm": {"model": str(folder)}}))
