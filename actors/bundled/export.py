"""Writes the trained parts as a folder that StableDiffusionPipeline.from_pretrained loads."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from transformers import CLIPTokenizer

from actors.bundled.resume import load_checkpoint
from actors.bundled.train_unet import CHECKPOINT, new_models, new_scheduler

KEPT = ("README.md", "contact_sheet.png")
"""Files that an export leaves in the folder, beside the model's own."""


def assemble(work: Path) -> tuple[StableDiffusionPipeline, int]:
    """The averaged weights of the newest checkpoint as a pipeline, and its training steps."""
    if not (work / CHECKPOINT).exists():
        raise SystemExit(f"{work}: no {CHECKPOINT}; run actors.bundled.train_unet first")
    average = new_models(work)
    step = load_checkpoint(work / CHECKPOINT, {"average": average})
    sharp = work / "vae_sharp"
    # The checker's absence is meant; diffusers would warn of it at every load.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(sharp if sharp.exists() else work / "vae"),
        text_encoder=average["text_encoder"],
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=average["unet"],
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline, step


def amend(path: Path, changes: dict[str, Any]) -> None:
    """Sets entries of a JSON file; None takes one out.

    transformers loads in the type that the configuration names, diffusers in float32: without this the two
    halves of a plainly loaded pipeline do not fit together. And diffusers writes one entry more of the
    autoencoder than it reads, and where on this machine it lay.
    """
    settings = json.loads(path.read_text(encoding="utf-8")) | changes
    settings = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def export(work: Path, out: Path) -> int:
    """Writes the folder beside ``out``, then renames it: a reader never sees half of it."""
    pipeline, step = assemble(work)
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    amend(fresh / "text_encoder" / "config.json", {"dtype": "float32"})
    amend(fresh / "vae" / "config.json", {"block_out_channels": None, "_name_or_path": None})
    # transformers 5 reads and writes tokenizer.json alone; version 4 wants the files it came from.
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copy(work / "tokenizer" / name, fresh / "tokenizer" / name)
    for name in KEPT:
        if (out / name).exists():
            shutil.copy(out / name, fresh / name)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with unet.pt and vae")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "emoji")
    arguments = parser.parse_args()
    step = export(arguments.work, arguments.out)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{arguments.out}: {step} training steps, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
