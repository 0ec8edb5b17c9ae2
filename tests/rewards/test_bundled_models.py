"""The bundled captioner and image-text model against real pictures whose animal and style their file names tell."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import actors.bundled
import rewards.bundled
from rewards.bundled import training
from rewards.bundled.examples import STYLE_WORDS, caption_of

MODELS = Path(rewards.bundled.__file__).parent
PICTURES = Path(actors.bundled.__file__).parent / "pictures"
FILES = sorted(PICTURES.glob("*/*.png"))
STYLES = ("fluent-3d", "fluent-flat", "noto", "twemoji")
ANIMALS = sorted({file.stem for file in FILES})
LOAD = """
from pathlib import Path
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor
folder = Path(%r)
captioner = AutoModelForImageTextToText.from_pretrained(folder / "captioner")
for model in (captioner, CLIPModel.from_pretrained(folder / "clip")):
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
AutoProcessor.from_pretrained(folder / "captioner")
CLIPProcessor.from_pretrained(folder / "clip")
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Threads that wait for each other make small models a hundred times slower on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def pictures() -> list[Image.Image]:
    """All shipped pictures, RGB on white."""
    found = []
    for file in FILES:
        with Image.open(file) as picture:
            found.append(picture.convert("RGB"))
    return found


@functools.cache
def captioner() -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = MODELS / "captioner"
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@torch.inference_mode()
def captions(images: list[Image.Image], batch: int) -> list[str]:
    model, processor = captioner()
    found: list[str] = []
    for first in range(0, len(images), batch):
        inputs = processor(images=images[first : first + batch], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        found += processor.batch_decode(tokens, skip_special_tokens=True)
    return found


@functools.cache
def image_text() -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    return CLIPModel.from_pretrained(MODELS / "clip").eval(), CLIPProcessor.from_pretrained(MODELS / "clip")


@torch.inference_mode()
def seen(images: list[Image.Image]) -> torch.Tensor:
    model, processor = image_text()
    inputs = processor(images=images, return_tensors="pt")
    return functional.normalize(model.get_image_features(**inputs).pooler_output)


@torch.inference_mode()
def said(texts: list[str]) -> torch.Tensor:
    model, processor = image_text()
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    return functional.normalize(model.get_text_features(**inputs).pooler_output)


def test_both_load_in_float32_without_a_hub() -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD % str(MODELS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("model", ["captioner", "clip"])
def test_weights_are_small_and_nothing_is_pickled(model: str) -> None:
    assert (MODELS / model / "model.safetensors").stat().st_size <= 3e6
    assert not [file for file in (MODELS / model).iterdir() if file.suffix in {".bin", ".pt", ".pkl"}]


def test_there_are_180_pictures_of_45_animals() -> None:
    assert len(FILES) == 180
    assert len(ANIMALS) == 45


def test_nine_of_ten_real_pictures_are_captioned_right() -> None:
    wanted = [caption_of(file.stem) for file in FILES]
    right = [caption == want for caption, want in zip(captions(pictures(), 16), wanted, strict=True)]
    assert sum(right) >= 162


def test_every_animal_is_named_and_nothing_else_is_said() -> None:
    found = captions(pictures(), 16)
    assert {"an ant", "a fox"} <= set(found) <= {caption_of(animal) for animal in ANIMALS}
    right = Counter(file.stem for file, caption in zip(FILES, found, strict=True) if caption == caption_of(file.stem))
    assert all(right[animal] >= 2 for animal in ANIMALS), right


def test_a_caption_does_not_depend_on_the_batch() -> None:
    images = pictures()[::5]
    together = captions(images, len(images))
    assert captions(images, 1) == together
    assert captions(images[::-1], 7)[::-1] == together


def test_arrays_are_captioned_as_pictures_are() -> None:
    _, processor = captioner()
    arrays = [np.asarray(image).transpose(2, 0, 1) for image in pictures()[:4]]
    inputs = processor(images=arrays, return_tensors="pt")
    assert torch.equal(inputs.pixel_values, processor(images=pictures()[:4], return_tensors="pt").pixel_values)


def test_the_processors_give_the_pixels_that_training_saw() -> None:
    picture = torch.from_numpy(np.asarray(pictures()[0]).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    for _, processor in (captioner(), image_text()):
        torch.testing.assert_close(processor(images=pictures()[:1], return_tensors="pt").pixel_values, picture)


def test_the_nearest_plain_text_names_the_animal() -> None:
    cosines = seen(pictures()) @ said([caption_of(animal) for animal in ANIMALS]).T
    right = [ANIMALS[place] == file.stem for place, file in zip(cosines.argmax(1).tolist(), FILES, strict=True)]
    assert sum(right) >= 171


def test_the_nearest_picture_of_an_animal_has_the_style_that_is_asked_for() -> None:
    embedded = seen(pictures()).view(len(STYLES), len(ANIMALS), -1)
    assert [file.parent.name for file in FILES[:: len(ANIMALS)]] == list(STYLES)
    texts = said([caption_of(animal, style) for style in STYLES for animal in ANIMALS]).view_as(embedded)
    nearest = torch.einsum("tad,pad->atp", texts, embedded).argmax(2)
    assert int((nearest == torch.arange(len(STYLES))).sum()) >= 171
    assert nearest[ANIMALS.index("fox")].tolist() == [0, 1, 2, 3]


def test_the_nearest_style_of_all_eight_is_the_pictures_own() -> None:
    styles = list(STYLE_WORDS)
    texts = said([caption_of(animal, style) for animal in ANIMALS for style in styles]).view(45, 8, -1)
    embedded = seen(pictures())
    right = 0
    for vector, file in zip(embedded, FILES, strict=True):
        nearest = (texts[ANIMALS.index(file.stem)] @ vector).argmax().item()
        right += styles[int(nearest)] == file.parent.name
    assert right >= 171


def test_an_embedding_does_not_depend_on_the_batch() -> None:
    images = pictures()[:9]
    torch.testing.assert_close(torch.cat([seen([image]) for image in images]), seen(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", ["captioner", "clip"])
def test_cards_name_every_source_of_drawings(model: str) -> None:
    card = (MODELS / model / "README.md").read_text(encoding="utf-8")
    assert "actors/bundled/ATTRIBUTION.md" in card
    for style in STYLE_WORDS:
        assert f"| {style} |" in card


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1)

    def trained(checkpoint: Path, killed_at: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 3)
        calls = 0

        def loss_of(random: torch.Generator) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                raise KeyboardInterrupt
            return model(torch.randn(4, 3, generator=random)).square().mean()

        training.train(model, loss_of, steps=12, rate=0.1, seed=0, checkpoint=checkpoint)
        return model.weight.detach()

    straight = trained(tmp_path / "straight.pt", killed_at=0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken.pt", killed_at=6)
    assert torch.equal(trained(tmp_path / "broken.pt", killed_at=0), straight)
