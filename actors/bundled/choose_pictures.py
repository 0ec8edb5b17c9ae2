"""Writes the small set of real animal pictures that the package carries, one per style and animal."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from actors.bundled.pictures import animals, squeeze
from actors.bundled.work import Pictures, load_pictures

STYLES = ("noto", "fluent-flat", "fluent-3d", "twemoji")
"""The styles that draw all 45 animals."""


def best_row(pictures: Pictures, style: str, animal: str) -> int:
    """The picture of the whole animal, else of its face; a style without the animal is an error."""
    rows = [row for row, entry in enumerate(pictures.entries) if entry["style"] == style and entry["animal"] == animal]
    if not rows:
        raise SystemExit(f"{style}: no picture of {animal}")
    return min(rows, key=lambda row: squeeze(pictures.entries[row]["name"]).endswith("face"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures.npz")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    arguments = parser.parse_args()
    pictures = load_pictures(arguments.work)
    for style in STYLES:
        (arguments.out / style).mkdir(parents=True, exist_ok=True)
        for animal in animals():
            image = Image.fromarray(pictures.pixels[best_row(pictures, style, animal)])
            # 256 colours are enough at 64 pixels, and half the bytes.
            small = image.quantize(256, dither=Image.Dither.NONE)
            small.save(arguments.out / style / f"{animal}.png", optimize=True)


if __name__ == "__main__":
    main()
