"""alignment against a plain computation from the captions, and its failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

import rewards.bundled
from rewards.alignment import Alignment, build
from rewards.bert_score import MINILM, load_encoder, minilm_folder
from rewards.config import RewardConfig
from rewards.reward import Status
from rewards.vlm import Answer, NoAnswer
from tests.rewards.test_vlm_local import blip_by_hand, llava_by_hand
from tests.rewards.tiny_models import pictures, save_blip, save_llava

PROMPTS = ("a cat riding a bike", "a dog washing dishes", "a fox playing chess")
SAID = ("A cat rides a red bicycle.", "a dog", "The sky over the sea")
NOTHING: tuple[dict[str, Any], ...] = ({}, {}, {})
BUNDLED = Path(rewards.bundled.__file__).parent / "captioner" / "model.safetensors"


@pytest.fixture(autouse=True)
def minilm() -> None:
    pytest.importorskip(MINILM)


@dataclass
class Says:
    """Always the same, and remembers what it was asked."""

    said: Sequence[Answer]
    questions: tuple[str, ...] = ()
    provenance: str = "made up"
    captions_only: bool = False

    def answers(self, images: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        self.questions = tuple(questions)
        return list(self.said)


def settings(model: Path | str = "none", **alignment: Any) -> RewardConfig:
    vlm = {"model": str(model), "max_new_tokens": 8}
    return RewardConfig.model_validate({"name": "alignment", "device": "cpu", "vlm": vlm, "alignment": alignment})


def reward(said: Sequence[Answer], **alignment: Any) -> Alignment:
    config = settings(**alignment)
    return Alignment(Says(said), load_encoder(config), config.alignment)


@torch.inference_mode()
def by_hand(candidate: str, reference: str) -> dict[str, float]:
    """Token by token, as equations 1 to 3 of arXiv 1904.09675 read."""
    tokenizer, model = AutoTokenizer.from_pretrained(minilm_folder()), AutoModel.from_pretrained(minilm_folder())
    states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in (candidate, reference)]
    ours, theirs = (list(torch.nn.functional.normalize(state, dim=1)) for state in states)
    precision = [max(float(a @ b) for b in theirs) for a in ours][1:-1]
    recall = [max(float(a @ b) for a in ours) for b in theirs][1:-1]
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return {"precision": p, "recall": r, "f1": 2 * p * r / (p + r)}


@pytest.mark.parametrize("measure", ["recall", "precision", "f1"])
def test_it_is_the_bert_score_of_the_answer_for_the_sentence(measure: str) -> None:
    scores = reward(SAID, measure=measure)(pictures(), PROMPTS, NOTHING)
    wanted = [
        by_hand(said, f"The image contains {prompt}")[measure] for said, prompt in zip(SAID, PROMPTS, strict=True)
    ]
    np.testing.assert_allclose(scores.values, wanted, atol=1e-5)
    assert scores.notes == SAID
    assert not scores.failures


def test_recall_is_what_the_paper_takes() -> None:
    assert reward(SAID).config.measure == "recall"


def test_the_question_and_both_sentences_are_settings() -> None:
    own = reward(SAID, question="who?", template="We see {}!", answer_template="It shows {}, {}")
    values = own(pictures(), PROMPTS, NOTHING).values
    wanted = by_hand(f"It shows {SAID[1]}, {SAID[1]}", f"We see {PROMPTS[1]}!")["recall"]
    assert values[1] == pytest.approx(wanted, abs=1e-5)
    assert isinstance(own.vlm, Says)
    assert own.vlm.questions == ("who?",) * 3
    for part in ("recall of answers to 'who?' as 'It shows {}, {}' for 'We see {}!'", "bert weights", "made up"):
        assert part in own.provenance


def test_what_was_not_said_has_no_number_and_costs_only_itself() -> None:
    late, silent = NoAnswer(Status.TIMED_OUT, "no answer"), NoAnswer(Status.INVALID, "the captioner said nothing")
    scores = reward([late, SAID[1], silent])(pictures(), PROMPTS, NOTHING)
    assert scores.failures == {
        0: (Status.TIMED_OUT, "no answer"),
        2: (Status.INVALID, "the captioner said nothing"),
    }
    assert np.isnan(np.asarray(scores.values)[[0, 2]]).all()
    assert scores.values[1] == pytest.approx(by_hand(SAID[1], f"The image contains {PROMPTS[1]}")["recall"], abs=1e-5)
    assert scores.notes == ("", SAID[1], "")


def test_empty_and_endless_prompts_and_answers_without_words() -> None:
    scores = reward([SAID[0], "a cat " * 2000, "\u200b"])(pictures(), (" ", "a dog " * 1667, "a fox"), NOTHING)
    assert scores.failures.keys() == {0, 2}
    assert "prompt is empty" in scores.failures[0][1]
    assert "no word the encoder knows" in scores.failures[2][1]
    assert {status for status, _ in scores.failures.values()} == {Status.INVALID}
    assert np.isfinite(scores.values[1])


def test_a_prompt_with_braces_is_taken_as_it_is() -> None:
    values = reward(SAID)(pictures(), ("{0.__class__} {}", *PROMPTS[1:]), NOTHING).values
    assert np.isfinite(values).all()


def test_a_chat_model_is_asked_the_question_about_each_image(tmp_path: Path) -> None:
    folder = save_llava(tmp_path)
    question = "what is in this image ?"
    scores = build(settings(folder, question=question))(pictures(), PROMPTS, NOTHING)
    assert scores.notes == tuple(llava_by_hand(folder, image, question) for image in pictures())
    wanted = [by_hand(said, f"The image contains {prompt}") for said, prompt in zip(scores.notes, PROMPTS, strict=True)]
    np.testing.assert_allclose(scores.values, [score["recall"] for score in wanted], atol=1e-5)


def test_a_captioner_only_captions(tmp_path: Path) -> None:
    folder = save_blip(tmp_path)
    made = build(settings(folder))
    assert made(pictures(), PROMPTS, NOTHING).notes == tuple(blip_by_hand(folder, image) for image in pictures())
    assert "recall of captions" in made.provenance


@pytest.mark.skipif(not BUNDLED.exists(), reason="no bundled model")
def test_the_bundled_captioner_prefers_the_right_animal() -> None:
    place = Path(rewards.bundled.__file__).parents[2] / "actors" / "bundled" / "pictures" / "noto"
    images = np.stack([np.asarray(Image.open(place / f"{name}.png").convert("RGB")) for name in ("fox", "bee", "cow")])
    made = build(settings("bundled", answer_template="The image contains {}"))
    right = made(images.transpose(0, 3, 1, 2), ("a fox", "a bee", "a cow"), NOTHING)
    wrong = made(images.transpose(0, 3, 1, 2), ("a bee", "a cow", "a fox"), NOTHING)
    assert right.notes == ("a fox", "a bee", "a cow")
    np.testing.assert_allclose(right.values, 1, atol=1e-6)
    assert (np.asarray(wrong.values) < 0.95).all()
