"""Pictures of a folder as models take them; what cannot be read is named in one line."""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from rewards.reward import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LARGEST = 64_000_000
"""Pixels; more in one picture is taken for a mistake, or for an attack on the memory."""
TOGETHER = 16
"""Pictures of one size that are embedded at once."""
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True, slots=True)
class Reference:
    """Pictures that are known to be readable, in the order of their names."""

    folder: Path
    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each."""
    digest: str
    """SHA-256 of all files."""

    @property
    def described(self) -> str:
        return f"{len(self.paths)} pictures sha256 {self.digest}"


def read_reference(folder: Path) -> Reference:
    """Look at all pictures of a folder (not of folders in it).

    Raises:
        ValueError: there is no such folder, fewer than two pictures in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"distribution.reference: no folder {folder}; it must be there on every reward worker")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if len(paths) < 2:
        raise ValueError(
            f"distribution.reference: {folder} holds {len(paths)} pictures ({', '.join(SUFFIXES)}); give at least 2"
        )
    digest, sizes = hashlib.sha256(), []
    for path in paths:
        image = read_picture(path)
        sizes.append((image.shape[1], image.shape[0]))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return Reference(folder, tuple(paths), tuple(sizes), digest.hexdigest())


def read_batches(reference: Reference) -> Iterator[Images]:
    """All pictures, a few of one size at a time."""
    places = range(len(reference.paths))
    for _, group in groupby(places, key=lambda place: reference.sizes[place]):
        alike = list(group)
        for start in range(0, len(alike), TOGETHER):
            pictures = [read_picture(reference.paths[place]) for place in alike[start : start + TOGETHER]]
            yield np.stack(pictures).transpose(0, 3, 1, 2).copy()


def read_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """One picture as it is shown: turned as its EXIF says, what is transparent on white.

    Raises:
        ValueError: it is cut off, too large, no picture, or of more than 8 bits a channel; one line with its name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is a stricter one
            file = Image.open(path)
        with file:
            if file.width * file.height > LARGEST:
                raise ValueError(f"{file.width}x{file.height} pixels are too many, make it smaller")
            if file.mode not in EIGHT_BIT:
                raise ValueError(f"its mode is {file.mode}, save it with 8 bits a channel")
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return np.array(picture.convert("RGB"))
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"distribution.reference: {path} cannot be used ({error}); replace or remove it") from error
