"""Trains the bundled captioner and writes it into a folder that transformers loads offline."""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from rewards.bundled.augment import augmented
from rewards.bundled.examples import Batches, caption_of
from rewards.bundled.training import train

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
HALF = [0.5, 0.5, 0.5]


def new_processor(animals: list[str]) -> BlipProcessor:
    """Pictures to 64 pixels in [-1, 1]; one token for every animal, letters for all other words."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), "an", *animals]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer = BertTokenizer(tokenizer_object=backend, vocab=vocabulary, bos_token="[DEC]", model_max_length=24)
    images = BlipImageProcessor(size={"height": 64, "width": 64}, image_mean=HALF, image_std=HALF)
    return BlipProcessor(images, tokenizer)


def new_model(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """Four vision layers and two text layers of 128."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 24, "projection_dim": 128,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    # The default spread is meant for weights that are loaded anyway.
    vision = {
        "image_size": 64, "patch_size": 8, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "initializer_range": 0.02, "projection_dim": 128,
    }  # fmt: skip
    return BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=vision, projection_dim=128, image_text_hidden_size=128)
    )


def caption_tokens(tokenizer: BertTokenizer, animals: list[str]) -> Tensor:
    """Int64 ``[len(animals), 4]``: [DEC] a fox [SEP], as ``generate`` begins and ends."""
    tokens = tokenizer([caption_of(animal) for animal in animals], return_tensors="pt").input_ids
    tokens[:, 0] = tokenizer.bos_token_id
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures, reconstructions and samples")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "captioner")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    batches = Batches(arguments.work)
    processor = new_processor(batches.animals)
    model = new_model(processor.tokenizer)
    place = {animal: index for index, animal in enumerate(batches.animals)}
    tokens = caption_tokens(processor.tokenizer, batches.animals)

    def loss_of(random: torch.Generator) -> Tensor:
        rows = batches.draw(arguments.batch, random)
        images = augmented(batches.examples.images(rows), random)
        wanted = tokens[[place[batches.examples.animals[row]] for row in rows.tolist()]]
        with torch.autocast("cpu", torch.bfloat16):
            return model(pixel_values=images, input_ids=wanted, labels=wanted).loss

    train(model, loss_of, arguments.steps, arguments.rate, arguments.seed, arguments.work / "captioner.pt")
    # Half the size on disk; the configuration says float32, and that is what loading makes of it.
    model.half().save_pretrained(arguments.out)
    model.config.dtype = torch.float32
    model.config.save_pretrained(arguments.out)
    processor.save_pretrained(arguments.out)
    (arguments.out / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
