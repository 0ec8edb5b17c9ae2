"""Folders of pictures as users have them, the broken ones too."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.reference_pictures import read_batches, read_picture, read_reference


def picture(size: tuple[int, int] = (6, 4), seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))


def test_all_kinds_of_files_in_the_order_of_their_names_a_few_of_a_size_at_once(tmp_path: Path) -> None:
    for name, size in (("a.png", (6, 4)), ("b.JPG", (6, 4)), ("c.webp", (4, 4)), ("d.jpeg", (6, 4))):
        picture(size).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("of a file browser")
    reference = read_reference(tmp_path)
    assert [path.name for path in reference.paths] == ["a.png", "b.JPG", "c.webp", "d.jpeg"]
    batches = list(read_batches(reference))
    assert [batch.shape for batch in batches] == [(2, 3, 4, 6), (1, 3, 4, 4), (1, 3, 4, 6)]
    np.testing.assert_array_equal(batches[0][0].transpose(1, 2, 0), np.array(picture()))


def test_large_groups_are_cut_into_batches(tmp_path: Path) -> None:
    for number in range(20):
        picture(seed=number).save(tmp_path / f"{number:02d}.png")
    assert [len(batch) for batch in read_batches(read_reference(tmp_path))] == [16, 4]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 255, 51]
    rgba[0, :, 0] = 200
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read_picture(tmp_path / "rgba.png").tolist() == [[[255] * 3, [200, 0, 0], [244, 204, 204]]]
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putdata([0, 1])
    indexed.save(tmp_path / "p.png", transparency=0)
    assert read_picture(tmp_path / "p.png").tolist() == [[[255] * 3, [40, 50, 60]]]


def test_grey_pictures_and_those_turned_by_exif(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").tolist() == [[[77] * 3] * 2] * 2
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture((6, 4)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "turned.png"), np.rot90(np.array(picture((6, 4))), -1))
    picture((6, 4), 1).save(tmp_path / "other.png")
    batches = list(read_batches(read_reference(tmp_path)))
    assert [batch.shape for batch in batches] == [(1, 3, 2, 2), (1, 3, 4, 6), (1, 3, 6, 4)]


def cut_off(path: Path) -> None:
    picture((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-600])


def cut_off_jpeg(path: Path) -> None:
    picture((64, 64)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:900])


def sixteen_bit(path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(path)


def save_header(path: Path, width: int, height: int) -> None:
    """A black-and-white PNG that says it is of this size, and has nothing in it."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (cut_off, "truncated"),
        (cut_off_jpeg, "truncated"),
        (lambda path: path.write_bytes(b""), "cannot identify image file"),
        (lambda path: path.write_text("<html>"), "cannot identify image file"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40), ""),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("nowhere.png"), "No such file"),
        (sixteen_bit, "save it with 8 bits a channel"),
    ],
    ids=["cut off", "cut-off JPEG", "empty", "HTML", "no PNG inside", "folder", "dead link", "16 bits"],
)
def test_what_cannot_be_read_is_one_line_with_its_name(tmp_path: Path, write: Callable[[Path], None], why: str) -> None:
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "b.png")
    write(tmp_path / "c.png")
    with pytest.raises(ValueError) as caught:
        read_reference(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"distribution.reference: {tmp_path / 'c.png'} cannot be used (")
    assert message.endswith("; replace or remove it")
    assert why in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("width", "why"), [(8_000, "too many, make it smaller"), (10_000, "too many"), (40_000, "decompression bomb")]
)
def test_huge_pictures_are_refused_by_what_they_say_of_themselves(tmp_path: Path, width: int, why: str) -> None:
    save_header(tmp_path / "a.png", width, width + 1)
    with pytest.raises(ValueError, match=rf"a\.png cannot be used \(.*{why}.*\); replace or remove it"):
        read_picture(tmp_path / "a.png")


def test_a_picture_without_pixels_is_refused(tmp_path: Path) -> None:
    save_header(tmp_path / "a.png", 0, 5)
    with pytest.raises(ValueError, match=r"a\.png cannot be used"):
        read_picture(tmp_path / "a.png")


def test_too_few_pictures_and_no_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 0 pictures \(\.png, .*\); give at least 2"):
        read_reference(tmp_path)
    picture().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds 1 pictures"):
        read_reference(tmp_path)
    with pytest.raises(ValueError, match=r"no folder .*nowhere; it must be there on every reward worker"):
        read_reference(tmp_path / "nowhere")


def test_the_digest_is_that_of_the_files(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    picture(seed=1).save(tmp_path / "b.png")
    before = read_reference(tmp_path).digest
    assert before == read_reference(tmp_path).digest
    picture(seed=2).save(tmp_path / "b.png")
    assert read_reference(tmp_path).digest != before
