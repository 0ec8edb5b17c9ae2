"""Images and metadata from the wire, against Pillow; hostile ones cost only themselves."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rewards.service import reward_pb2 as pb
from rewards.service.images import MAX_PIXELS, decode, encode, parse_metadata
from tests.rewards.service.servers import pictures, raw

ROOM = 1 << 26


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(pictures(1)[0].transpose(1, 2, 0)).convert(mode)


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that promises this size and has one row of zeros."""
    chunks = b""
    for kind, data in [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1 + 3 * 16))),
        (b"IEND", b""),
    ]:
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_an_image_arrives_as_it_was_sent() -> None:
    images = pictures(2)[:, :, :, :9]
    for image, sample in zip(images, encode(images, ["", "x" * 10_000], [{}, {"a": [1, None]}]), strict=True):
        np.testing.assert_array_equal(decode(sample, ROOM), image)
        pillow = Image.fromarray(image.transpose(1, 2, 0))
        np.testing.assert_array_equal(decode(pb.Sample(png=png(pillow)), ROOM), image)
    assert [len(sample.prompt) for sample in encode(images, ["", "x" * 10_000], [{}, {}])] == [0, 10_000]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (pb.Sample(), "there is no image"),
        (pb.Sample(png=b""), "not a PNG"),
        (pb.Sample(png=b"\xff\xd8\xff" + bytes(100)), "not a PNG"),
        (pb.Sample(png=png(picture())[:200]), "a damaged PNG: "),
        (pb.Sample(png=png(picture())[:33]), "a damaged PNG: "),
        (pb.Sample(png=png(picture("P"))), "a PNG of 8 bit a palette, not of 8 bit RGB"),
        (pb.Sample(png=png(picture("L"))), "a PNG of 8 bit grey, "),
        (pb.Sample(png=png(picture("RGBA"))), "a PNG of 8 bit RGB with alpha, "),
        (pb.Sample(png=png(picture("LA"))), "a PNG of 8 bit grey with alpha, "),
        (pb.Sample(png=png(picture("I;16"))), "a PNG of 16 bit grey, "),
        (pb.Sample(png=header(16, 16, depth=16)), "a PNG of 16 bit RGB, "),
        (pb.Sample(png=header(60_000, 60_000)), "an image of 60000x60000 pixels; at most "),
        (pb.Sample(png=header(0, 16)), "an image of 0x16 pixels"),
        (pb.Sample(raw=pb.RawImage(height=0, width=0)), "an image of 0x0 pixels"),
        (pb.Sample(raw=pb.RawImage(height=4, width=4, rgb=bytes(47))), "47 bytes are no 4x4 pixels of 3 bytes"),
        (pb.Sample(raw=pb.RawImage(height=2**32 - 1, width=2**32 - 1)), "an image of 4294967295x4294967295 pixels; "),
    ],
)
def test_what_is_no_8_bit_rgb_image_is_refused_with_a_reason(sample: pb.Sample, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        decode(sample, ROOM)
    assert str(caught.value).startswith(reason)


def test_a_large_image_is_refused_before_it_is_unpacked() -> None:
    assert MAX_PIXELS > 4000 * 4000
    with pytest.raises(ValueError, match="no room for 4000x4000 pixels"):
        decode(pb.Sample(png=header(4000, 4000)), 4000 * 4000 * 3 - 1)
    image = pictures(1)[0]
    np.testing.assert_array_equal(decode(raw(image), image.nbytes), image)
    with pytest.raises(ValueError, match="no room for 16x16"):
        decode(raw(image), image.nbytes - 1)


def test_any_damage_to_a_png_is_a_refusal_or_an_image() -> None:
    whole, random = png(picture()), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=3):
            damaged[place] = random.integers(256)
        try:
            assert decode(pb.Sample(png=bytes(damaged)), ROOM).dtype == np.uint8
        except ValueError:
            refused += 1
    assert refused > 100


def test_metadata_is_a_json_object() -> None:
    assert parse_metadata("") == {}
    assert parse_metadata('{"questions": ["is it a cat?"], "n": 1.5}') == {"questions": ["is it a cat?"], "n": 1.5}


@pytest.mark.parametrize("text", ["{", "[1]", "1", '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, "null"])
def test_other_metadata_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="metadata is "):
        parse_metadata(text)
