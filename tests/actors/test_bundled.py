"""The embedded model loads, speaks, draws and names its sources; its real pictures are all there."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import actors.bundled
from actors.bundled.pictures import PACKAGES, animal_of, animals, with_article

BUNDLED = Path(actors.bundled.__file__).parent
MODEL = BUNDLED / "emoji"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Threads that wait for each other make this model a hundred times slower on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(MODEL)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(prompt: str, seed: int) -> np.ndarray:
    random = torch.Generator().manual_seed(seed)
    return pipeline()(prompt, num_inference_steps=4, generator=random, output_type="np").images


def test_the_whole_model_is_at_most_25_megabytes():
    assert sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) <= 25e6


def test_a_four_step_image_is_finite_and_not_constant():
    image = draw("a fox", seed=0)
    assert image.shape == (1, 64, 64, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0.02


def test_the_prompt_changes_the_image_and_the_seed_repeats_it():
    assert np.array_equal(draw("a fox", seed=1), draw("a fox", seed=1))
    assert not np.array_equal(draw("a fox", seed=1), draw("a whale", seed=1))


@pytest.mark.parametrize("word", ["a fox", "zxqvjk", "Straße", "漢字", "🦊", "naïve42", "", "~!@#$%^&*()"])
def test_no_word_is_unknown(word: str):
    tokenizer = pipeline().tokenizer
    ids = tokenizer(word).input_ids
    # The unknown token is the end token, as in CLIP: it may stand at the end alone.
    assert ids[0] == tokenizer.bos_token_id
    assert ids.index(tokenizer.unk_token_id) == len(ids) - 1


def test_every_animal_is_one_token_of_its_own():
    ids = [tuple(pipeline().tokenizer(name).input_ids[1:-1]) for name in animals()]
    assert {len(pieces) for pieces in ids} == {1}
    assert len(set(ids)) == 45


def test_the_scheduler_is_one_that_every_denoising_step_can_be_scored_on():
    settings = pipeline().scheduler.config
    assert settings.steps_offset == 1
    assert not settings.clip_sample
    assert not settings.set_alpha_to_one


@pytest.mark.parametrize("style", ["noto", "fluent-flat", "fluent-3d", "twemoji"])
def test_every_prompted_animal_has_a_real_picture(style: str):
    for name in animals():
        with Image.open(BUNDLED / "pictures" / style / f"{name}.png") as picture:
            assert picture.size == (64, 64)


@pytest.mark.parametrize("document", ["emoji/README.md", "ATTRIBUTION.md"])
def test_card_and_attribution_name_every_source_package_with_its_version(document: str):
    text = (BUNDLED / document).read_text(encoding="utf-8")
    for package in PACKAGES:
        name, version = package.rsplit("@", 1)
        assert name in text
        assert version in text


@pytest.mark.parametrize(
    ("label", "caption"),
    [("fox", "a fox"), ("ant", "an ant"), ("jeans", "jeans"), ("cactus", "a cactus"), ("polar-bear", "a polar bear")],
)
def test_captions_have_the_article_that_fits(label: str, caption: str):
    assert with_article(label) == caption


@pytest.mark.parametrize(
    ("name", "animal"),
    [("cat-face", "cat"), ("ewe-2", "sheep"), ("catside", "cat"), ("spouting-whale", "whale"), ("surface", "")],
)
def test_names_of_the_picture_sets_lead_to_the_animal(name: str, animal: str):
    assert animal_of(name, set(animals())) == animal
