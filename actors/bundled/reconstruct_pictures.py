"""Passes the real animal pictures through the exported autoencoder: its look, with animal and style known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from actors.bundled.evaluate import load_pipeline, reconstructed
from actors.bundled.judge import moved
from actors.bundled.work import load_pictures

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures.npz")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "emoji")
    parser.add_argument("--each", type=int, default=6, help="copies: as drawn, mirrored, the others moved at random")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    random = torch.Generator().manual_seed(arguments.seed)
    pictures = load_pictures(arguments.work)
    pipeline = load_pipeline(arguments.model)
    rows = [row for row, entry in enumerate(pictures.entries) if entry["animal"]]
    pixels, entries = [], []
    for copy in range(arguments.each):
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            images = pictures.batch(torch.tensor(part))
            if copy:
                images = images.flip(3) if copy == 1 else moved(images, random)
            found = reconstructed(pipeline, images)
            pixels.append(((found + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
            entries += [pictures.entries[row] for row in part]
    np.savez_compressed(arguments.work / "reconstructions.npz", pixels=np.concatenate(pixels))
    listing = json.dumps(entries, indent=0, ensure_ascii=False)
    (arguments.work / "reconstructions.json").write_text(listing, encoding="utf-8")
    print(f"{len(entries)} reconstructions of {len(rows)} pictures")


if __name__ == "__main__":
    main()
