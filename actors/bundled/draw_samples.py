"""Draws pictures with the exported model, as reinforcement samples them, for models that learn to judge them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from actors.bundled.evaluate import load_pipeline
from actors.bundled.pictures import animals, with_article

BATCH = 36


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for NAME.npz and NAME.json")
    parser.add_argument("--name", default="samples")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "emoji")
    parser.add_argument("--each", type=int, default=40, help="images per animal")
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps")
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="image i of the file has seed SEED + i")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline(arguments.model)
    names = [name for name in animals() for _ in range(arguments.each)]
    drawn = []
    for first in range(0, len(names), BATCH):
        part = [with_article(name) for name in names[first : first + BATCH]]
        random = [torch.Generator().manual_seed(arguments.seed + first + i) for i in range(len(part))]
        images = pipeline(
            part,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
            eta=arguments.eta,
            generator=random,
            output_type="np",
        ).images
        drawn.append((images * 255).round().astype(np.uint8))
    np.savez_compressed(arguments.work / f"{arguments.name}.npz", pixels=np.concatenate(drawn))
    entries = [{"caption": with_article(name), "animal": name} for name in names]
    listing = json.dumps(entries, indent=0)
    (arguments.work / f"{arguments.name}.json").write_text(listing, encoding="utf-8")
    print(f"{len(names)} pictures of {len(set(names))} animals in {arguments.name}.npz")


if __name__ == "__main__":
    main()
