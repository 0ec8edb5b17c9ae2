"""Trains the bundled image-text model and writes it into a folder that transformers loads offline."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from rewards.bundled.augment import augmented
from rewards.bundled.examples import STYLE_WORDS, Batches, caption_of
from rewards.bundled.training import train

TOKENIZER = Path(__file__).parents[2] / "actors" / "bundled" / "emoji" / "tokenizer"
HALF = [0.5, 0.5, 0.5]
LARGEST_SCALE = 50.0
"""Of the cosines: without a bound it grows until they say little."""


def new_processor(tokenizer: Path) -> CLIPProcessor:
    """Pictures to 64 pixels in [-1, 1]; the generator's own tokenizer."""
    images = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=HALF, image_std=HALF
    )
    return CLIPProcessor(images, CLIPTokenizer.from_pretrained(tokenizer))


def new_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Four vision layers of 128, two text layers of 96, both into 128 numbers."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 24, "projection_dim": 128,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "image_size": 64, "patch_size": 8, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "projection_dim": 128,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def contrast(cosines: Tensor, scale: Tensor, texts: Tensor) -> Tensor:
    """Loss of images against all texts and of the texts that occur against the images.

    ``cosines`` is ``[images, texts]``, ``texts`` says which is each image's. Several images of a batch may share a
    text: they are its answers in equal parts, not each other's wrong answers.
    """
    logits = cosines * scale
    present, right = torch.unique(texts, return_inverse=True)
    answers = functional.one_hot(right, len(present)).float()
    answers = answers / answers.sum(0)
    found = functional.log_softmax(logits[:, present], 0)
    return functional.cross_entropy(logits, texts) - (answers * found).sum(0).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures, reconstructions and samples")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder of the generator's tokenizer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "clip")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    batches = Batches(arguments.work)
    processor = new_processor(arguments.tokenizer)
    model = new_model(processor.tokenizer)
    styles = list(STYLE_WORDS)
    plain = [caption_of(animal) for animal in batches.animals]
    styled = [caption_of(animal, style) for animal in batches.animals for style in styles]
    tokens = processor.tokenizer([*plain, *styled], padding=True, return_tensors="pt")
    animal_of = torch.tensor([batches.animals.index(animal) for animal in batches.examples.animals])
    style_of = torch.tensor([styles.index(style) if style else -1 for style in batches.examples.styles])

    def loss_of(random: torch.Generator) -> Tensor:
        rows = batches.draw(arguments.batch, random)
        images = augmented(batches.examples.images(rows), random)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.visual_projection(model.vision_model(images).pooler_output)
            said = model.text_projection(model.text_model(**tokens).pooler_output)
        seen, said = functional.normalize(seen.float()), functional.normalize(said.float())
        scale = model.logit_scale.clamp(max=math.log(LARGEST_SCALE)).exp()
        animal, style = animal_of[rows], style_of[rows]
        known = style >= 0
        of_animal = contrast(seen @ said[: len(plain)].T, scale, animal)
        place = animal[known] * len(styles) + style[known]
        return of_animal + contrast(seen[known] @ said[len(plain) :].T, scale, place)

    train(model, loss_of, arguments.steps, arguments.rate, arguments.seed, arguments.work / "clip.pt")
    model.logit_scale.data.clamp_(max=math.log(LARGEST_SCALE))
    # Half the size on disk; the configuration says float32, and that is what loading makes of it.
    model.half().save_pretrained(arguments.out)
    model.config.dtype = torch.float32
    model.config.save_pretrained(arguments.out)
    processor.save_pretrained(arguments.out)
    (arguments.out / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
