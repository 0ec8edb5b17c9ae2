"""Images and metadata as they travel, and back. What arrives here may come from anyone, so it is measured first."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rewards.reward import Images, Metadata
from rewards.service import reward_pb2

MAX_PIXELS = 4096 * 4096
"""Most pixels of one image."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB = 2
COLOUR_TYPES = {0: "grey", RGB: "RGB", 3: "a palette", 4: "grey with alpha", 6: "RGB with alpha"}


def encode(images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> list[reward_pb2.Sample]:
    """Samples with raw pixels: PNG would cost more time than it saves on any but a slow network."""
    samples: list[reward_pb2.Sample] = []
    for image, prompt, of_prompt in zip(images.transpose(0, 2, 3, 1), prompts, metadata, strict=True):
        height, width, _ = image.shape
        raw = reward_pb2.RawImage(height=height, width=width, rgb=image.tobytes())
        text = json.dumps(dict(of_prompt), allow_nan=False) if of_prompt else ""
        samples.append(reward_pb2.Sample(raw=raw, prompt=prompt, metadata=text))
    return samples


def decode(sample: reward_pb2.Sample, room: int) -> UInt8[np.ndarray, "3 height width"]:
    """The image of a sample.

    Args:
        room: bytes that it may take when it is decoded.

    Raises:
        ValueError: no image, or none that a reward should see; the message says why.
    """
    kind = sample.WhichOneof("image")
    if kind is None:
        raise ValueError("there is no image")
    if kind == "raw":
        height, width = sample.raw.height, sample.raw.width
        _check_size(height, width, room)
        if len(sample.raw.rgb) != height * width * 3:
            raise ValueError(f"{len(sample.raw.rgb)} bytes are no {width}x{height} pixels of 3 bytes")
        pixels = np.frombuffer(sample.raw.rgb, np.uint8).reshape(height, width, 3)
    else:
        pixels = _decode_png(sample.png, room)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_size(height: int, width: int, room: int) -> None:
    if not height * width:
        raise ValueError(f"an image of {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels; at most {MAX_PIXELS} are allowed")
    if height * width * 3 > room:
        raise ValueError(f"no room for {width}x{height} pixels: the request's images are larger than a message may be")


def _decode_png(data: bytes, room: int) -> UInt8[np.ndarray, "height width 3"]:
    # The header says all that matters before a decoder allocates anything; Pillow would turn 16 bits into 8 unasked.
    if len(data) < 33 or not data.startswith(PNG_SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("not a PNG")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    _check_size(height, width, room)
    if depth != 8 or colour != RGB:
        raise ValueError(f"a PNG of {depth} bit {COLOUR_TYPES.get(colour, 'unknown colours')}, not of 8 bit RGB")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # fed with hostile bytes, a decoder may raise anything
        raise ValueError(f"a damaged PNG: {error}") from error


def parse_metadata(text: str) -> Metadata:
    """The JSON object that a sample brings along.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return {}
    try:
        metadata = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata is JSON, but a {type(metadata).__name__} instead of an object")
    return metadata


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
