"""How large an image is as JPEG: the paper's compressibility and incompressibility."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image, features

from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores

SUBSAMPLING = "4:2:0"
"""One colour value for 2x2 pixels: Pillow's default, spelled out so that no release of it can change the reward."""


@dataclass(frozen=True, slots=True)
class JpegSize:
    """Kilobytes (1000 bytes) of each image as JPEG, times a sign (arXiv 2305.13301, section 5.1).

    At quality 95 and Pillow's defaults it is `jpeg_incompressibility` of kvablack/ddpo-pytorch; compressibility is its
    negative. For 64 px images a few kB, for 512 px about 100.
    """

    name: str
    sign: float
    quality: int

    @property
    def provenance(self) -> str:
        """Sizes depend on the encoder, so it is named."""
        encoder = f"libjpeg-turbo {features.version('libjpeg_turbo')}"
        if not features.check_feature("libjpeg_turbo"):
            encoder = f"libjpeg {features.version('jpg')}"
        return f"{self.name}: jpeg quality {self.quality}, {SUBSAMPLING}, kB, Pillow {PIL.__version__}, {encoder}"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        sizes = [jpeg_bytes(image, self.quality) for image in images.transpose(0, 2, 3, 1)]
        return Scores(np.array([self.sign * size / 1000 for size in sizes], dtype=np.float32))


def jpeg_bytes(image: np.ndarray, quality: int) -> int:
    """Bytes of one [height, width, 3] image as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=SUBSAMPLING)
    return buffer.tell()


def compressibility(config: RewardConfig) -> JpegSize:
    """Minus the size: the smaller the better."""
    return JpegSize("compressibility", -1.0, config.jpeg.quality)


def incompressibility(config: RewardConfig) -> JpegSize:
    """The size: the larger the better."""
    return JpegSize("incompressibility", 1.0, config.jpeg.quality)
