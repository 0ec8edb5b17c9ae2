"""Models of transformers that look at images, against plain greedy loops over their logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration, LlavaForConditionalGeneration, PreTrainedTokenizerFast

import rewards.bundled
from rewards.config import RewardConfig
from rewards.vlm import NoAnswer, Vlm, build_vlm
from rewards.vlm_local import said
from tests.rewards.tiny_models import pictures, save_blip, save_llava

QUESTIONS = ["what is in this image ?", "how many animals are there in this image ?", "a red cat"]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
BUNDLED = Path(rewards.bundled.__file__).parent / "captioner" / "model.safetensors"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip"))


def settings(folder: Path | str, **vlm: Any) -> RewardConfig:
    values = {"name": "alignment", "device": "cpu", "vlm": {"model": str(folder), "max_new_tokens": 8, **vlm}}
    return RewardConfig.model_validate(values)


def vlm_of(folder: Path | str, **vlm: Any) -> Vlm:
    return build_vlm(settings(folder, **vlm))


def pixels(image: np.ndarray) -> torch.Tensor:
    small = Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BICUBIC)
    values = (torch.from_numpy(np.array(small)).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return values.permute(2, 0, 1)[None]


@torch.inference_mode()
def llava_by_hand(folder: Path, image: np.ndarray, question: str) -> str:
    """One sample, no padding, no cache: four patches and the class token stand where the image is."""
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = ["USER:", *["<image>"] * 4, *question.split(), "ASSISTANT:"]
    tokens = [tokenizer.bos_token_id, *tokenizer.convert_tokens_to_ids(text)]
    new: list[int] = []
    for _ in range(8):
        logits = model(input_ids=torch.tensor([tokens + new]), pixel_values=pixels(image)).logits
        new.append(int(logits[0, -1].argmax()))
        if new[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(new, skip_special_tokens=True)


@torch.inference_mode()
def blip_by_hand(folder: Path, image: np.ndarray) -> str:
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokens = [tokenizer.bos_token_id]
    for _ in range(8):
        tokens.append(int(model(pixels(image), torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_chat_model_answers_as_a_greedy_loop_does(llava: Path) -> None:
    answers = vlm_of(llava).answers(pictures(), QUESTIONS)
    wanted = [llava_by_hand(llava, image, question) for image, question in zip(pictures(), QUESTIONS, strict=True)]
    assert answers == wanted
    assert len(set(wanted)) == 3


def test_an_answer_depends_on_image_and_question_and_not_on_neighbours(llava: Path) -> None:
    vlm = vlm_of(llava)
    images, questions = pictures(6, seed=3), QUESTIONS * 2
    together = vlm.answers(images, questions)
    assert [vlm.answers(images[i : i + 1], questions[i : i + 1])[0] for i in range(6)] == together
    assert vlm.answers(images[::-1], questions[::-1])[::-1] == together
    assert vlm.answers(images, [QUESTIONS[0]] * 6) != together
    assert vlm.answers(images[[1, 0, 2, 3, 4, 5]], questions)[:2] != together[:2]


def test_a_captioner_is_asked_nothing_and_captions_as_a_greedy_loop_does(blip: Path) -> None:
    vlm = vlm_of(blip)
    assert vlm.captions_only
    images = pictures(5, seed=2)
    captions = vlm.answers(images, QUESTIONS + [""] * 2)
    assert captions == [blip_by_hand(blip, image) for image in images]
    assert captions == [vlm.answers(images[i : i + 1], [""])[0] for i in range(5)]
    assert len(set(captions)) > 1


def test_a_question_may_be_left_out(llava: Path) -> None:
    assert vlm_of(llava).answers(pictures(1), [""]) == [llava_by_hand(llava, pictures(1)[0], "")]


def test_saying_nothing_is_a_failure(blip: Path, tmp_path: Path) -> None:
    folder = copied(blip, tmp_path)
    weights = load_file(blip / "model.safetensors")
    bias = next(name for name in weights if name.endswith("predictions.bias"))
    weights[bias][3] = 1e6  # the end of the caption, at once
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for answer in vlm_of(folder).answers(pictures(), QUESTIONS):
        assert isinstance(answer, NoAnswer)
        assert (answer.status.value, answer.reason) == ("invalid", "the captioner said nothing")


def test_only_a_question_that_is_repeated_is_taken_away() -> None:
    asked = torch.tensor([[5, 6], [0, 7]])
    repeated, fresh = torch.tensor([[5, 6, 9], [0, 7, 8]]), torch.tensor([[5, 7, 9], [0, 7, 8]])
    assert said(repeated, asked).tolist() == [[9], [8]]
    assert said(fresh, asked).tolist() == fresh.tolist()
    assert said(torch.tensor([[5], [0]]), asked).tolist() == [[5], [0]]
    assert said(fresh, None) is fresh


def test_the_type_of_the_weights_is_the_one_asked_for(llava: Path) -> None:
    origin = vlm_of(llava, dtype="bfloat16").provenance
    assert "bfloat16 on cpu" in origin
    assert "float32 on cpu" in vlm_of(llava).provenance
    assert vlm_of(llava, dtype="bfloat16").answers(pictures(), QUESTIONS)


def test_provenance_names_what_an_answer_depends_on(llava: Path) -> None:
    import hashlib

    origin = vlm_of(llava, max_new_tokens=9).provenance
    digest = hashlib.sha256((llava / "model.safetensors").read_bytes()).hexdigest()[:16]
    for part in (f"llava weights sha256 {digest}", "greedy, at most 9 tokens", '"image_mean"', "transformers 5"):
        assert part in origin
    assert str(llava) not in origin


def test_models_that_cannot_be_used_are_one_line(llava: Path, tmp_path: Path) -> None:
    lacking, text_only = copied(llava, tmp_path / "a"), copied(llava, tmp_path / "b")
    weights = load_file(llava / "model.safetensors")
    removed = next(name for name in weights if "multi_modal_projector" in name)
    del weights[removed]
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    (text_only / "config.json").write_text('{"model_type": "bert"}')
    for folder, words in (
        (lacking, "has no weights for .*multi_modal_projector"),
        (text_only, "cannot be loaded as AutoModelForImageTextToText"),
        (tmp_path / "none", "give a folder, `bundled` or a hub id"),
    ):
        with pytest.raises(ValueError, match=rf"rewards.vlm.model: .*{words}") as caught:
            vlm_of(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not BUNDLED.exists(), reason="no bundled model")
def test_the_bundled_captioner_names_animals() -> None:
    place = Path(rewards.bundled.__file__).parents[2] / "actors" / "bundled" / "pictures" / "noto"
    images = np.stack([np.asarray(Image.open(place / f"{name}.png").convert("RGB")) for name in ("fox", "bee", "cow")])
    captions = vlm_of("bundled").answers(images.transpose(0, 3, 1, 2), [""] * 3)
    assert captions == ["a fox", "a bee", "a cow"]


def copied(source: Path, target: Path) -> Path:
    folder = target / "copy"
    folder.mkdir(parents=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
