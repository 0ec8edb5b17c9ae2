"""Measures both bundled models on pictures that they did not learn from, and how fast they are."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from rewards.bundled.augment import augmented
from rewards.bundled.examples import STYLE_WORDS, Examples, caption_of, load, split

HERE = Path(__file__).parent
BATCH = 16
COPIES = 8


class Captioner:
    """The bundled captioner, as transformers loads it."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self._processor: Any = AutoProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[str]:
        """Captions of ``[N, 3, 64, 64]`` in [-1, 1]."""
        found: list[str] = []
        for part in images.split(BATCH):
            tokens = self._model.generate(pixel_values=part, max_new_tokens=8, do_sample=False)
            found += self._processor.batch_decode(tokens, skip_special_tokens=True)
        return found

    def figures(self, examples: Examples, images: Tensor) -> dict[str, Any]:
        """How often the caption is the animal's, and the animals with most mistakes."""
        captions = self(images)
        right = [caption == caption_of(animal) for caption, animal in zip(captions, examples.animals, strict=True)]
        wrong = Counter(animal for animal, good in zip(examples.animals, right, strict=True) if not good)
        return {"caption_right": share(right), "most_missed": wrong.most_common(6)}


class ImageText:
    """The bundled image-text model, as transformers loads it."""

    def __init__(self, folder: Path, animals: list[str]) -> None:
        self._model: Any = CLIPModel.from_pretrained(folder).eval()
        self._processor: Any = CLIPProcessor.from_pretrained(folder)
        self._animals, self._styles = animals, list(STYLE_WORDS)
        self._plain = self._said([caption_of(animal) for animal in animals])
        self._styled = self._said([caption_of(animal, style) for animal in animals for style in self._styles])

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Unit vectors ``[N, 128]`` of ``[N, 3, 64, 64]`` in [-1, 1]."""
        found = [self._model.get_image_features(pixel_values=part).pooler_output for part in images.split(BATCH)]
        return functional.normalize(torch.cat(found))

    @torch.inference_mode()
    def _said(self, texts: list[str]) -> Tensor:
        tokens = self._processor(text=texts, padding=True, return_tensors="pt")
        return functional.normalize(self._model.get_text_features(**tokens).pooler_output)

    def figures(self, examples: Examples, images: Tensor) -> dict[str, Any]:
        """How often the nearest text names the animal, and the style; which style, where nobody knows it."""
        seen, rows = self(images), torch.arange(len(images))
        animal = torch.tensor([self._animals.index(name) for name in examples.animals])
        plain = seen @ self._plain.T
        styled = (seen @ self._styled.T).view(len(seen), len(self._animals), len(self._styles))
        nearest = styled[rows, animal].argmax(1)
        figures: dict[str, Any] = {
            "animal_first_of_45": share(plain.argmax(1) == animal),
            "cosine_with_own_text": round(plain[rows, animal].mean().item(), 3),
        }
        if not all(examples.styles):
            styles = {STYLE_WORDS[style]: share(nearest == index) for index, style in enumerate(self._styles)}
            return {**figures, "styles": styles}
        style = torch.tensor([self._styles.index(name) for name in examples.styles])
        figures["style_first_of_8"] = share(nearest == style)
        figures["both_first_of_360"] = share(styled.flatten(1).argmax(1) == animal * len(self._styles) + style)
        return figures


def share(right: list[bool] | Tensor) -> float:
    """Share of what is true, to a thousandth."""
    return round(torch.as_tensor(right).float().mean().item(), 3)


def milliseconds(call: Callable[[Tensor], Any], images: Tensor) -> float:
    """An image, on one thread, preparation of the pixels not counted."""
    call(images[:BATCH])
    began = time.perf_counter()
    call(images)
    return round(1000 * (time.perf_counter() - began) / len(images), 2)


def varied(examples: Examples, copies: int, seed: int) -> tuple[Examples, Tensor]:
    """``copies`` augmented copies of each picture."""
    many = examples.at([row for row in range(len(examples.animals)) for _ in range(copies)])
    return many, augmented(many.images(), torch.Generator().manual_seed(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures, reconstructions and samples")
    parser.add_argument("--models", type=Path, default=HERE, help="folder with captioner/ and clip/")
    parser.add_argument(
        "--samples", nargs="*", default=[], help="names of generated pictures that nothing learned from"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures, unseen = split(load(arguments.work, "pictures"))
    reconstructions = split(load(arguments.work, "reconstructions"))[1]
    sets = {
        "pictures learned from, varied": varied(pictures, 1, seed=1),
        "pictures held out": (unseen, unseen.images()),
        "pictures held out, varied": varied(unseen, COPIES, seed=2),
        "reconstructions held out": (reconstructions, reconstructions.images()),
    }
    for name in arguments.samples:
        examples = load(arguments.work, name)
        sets[name] = examples, examples.images()
    animals = sorted(set(pictures.animals))
    models = {
        "captioner": Captioner(arguments.models / "captioner"),
        "clip": ImageText(arguments.models / "clip", animals),
    }
    for title, model in models.items():
        for name, (examples, images) in sets.items():
            figures = {"model": title, "set": name, "pictures": len(images), **model.figures(examples, images)}
            print(json.dumps(figures), flush=True)
        took = milliseconds(model, sets["pictures held out, varied"][1][:96])
        print(json.dumps({"model": title, "milliseconds_an_image": took}), flush=True)


if __name__ == "__main__":
    main()
