"""Fetches openly licensed emoji from npm, renders them at 64x64 and captions them."""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
"""Side of a picture in pixels."""
SUPERSAMPLE = 4
ANIMALS_FILE = Path(__file__).parent.parent / "prompt_sets" / "animals45.txt"

CAPTIONS = "emojibase-data@17.0.0"
WEBP_SETS = {"fluent-3d": "@lobehub/fluent-emoji-3d@1.1.0"}
SVG_SETS = {
    "fluent-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "streamline": "@iconify-json/streamline-emojis@1.2.4",
}
PACKAGES = (CAPTIONS, *WEBP_SETS.values(), *SVG_SETS.values())

OTHER_NAMES = {
    "ewe": "sheep", "honeybee": "bee", "chipmunk": "squirrel", "twohumpcamel": "camel",
    "bactriancamel": "camel", "dromedarycamel": "camel", "spoutingwhale": "whale",
    "spurtingwhale": "whale", "wolfface": "wolf", "foxface": "fox", "bearface": "bear",
    "frogface": "frog", "lionface": "lion",
}  # fmt: skip
"""Names of the picture sets, squeezed by :func:`squeeze`, that mean one of the 45 animals."""
LEFT_OUT = ("skin tone", " tone", "flag for", "regional indicator", "flag:")
"""Near copies (skin tones) and pictures that say nothing by shape (country flags)."""
NO_ANIMALS = {("streamline", "turkey")}
"""Pictures of an animal's name that show something else: here the country's flag."""
TONE = re.compile(r"-(dark|light|medium(-dark|-light)?)(-skin-tone)?$")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of one rendered picture, row ``i`` of ``pictures.npz`` for entry ``i``."""

    style: str
    name: str
    caption: str
    animal: str
    """One of the 45 animals, or empty."""


def animals() -> list[str]:
    """The 45 animals of the DDPO paper, in file order."""
    lines = ANIMALS_FILE.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def squeeze(name: str) -> str:
    """``"Fox-Face-2"`` -> ``"foxface"``: sets spell the same name with different separators."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[-_ ]\d+$", "", name.lower()))


def with_article(label: str) -> str:
    """``"ant"`` -> ``"an ant"``; plurals and names with digits or colons stay bare."""
    text = label.lower().replace("-", " ").strip()
    plural = text.endswith("s") and not text.endswith(("ss", "us", "is"))
    if plural or ":" in text or text[:1].isdigit():
        return text
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"


def animal_of(name: str, known: set[str]) -> str:
    """The animal that a picture's name means, whole or only its face; else an empty string."""
    key = squeeze(name)
    key = OTHER_NAMES.get(key, key)
    for ending in ("", "face", "side"):
        stem = key.removesuffix(ending) if ending else key
        if stem in known:
            return stem
    return ""


def fetch(package: str, folder: Path) -> Path:
    """The package's tarball, by ``npm pack`` (it checks the digest) unless it is there."""
    name, version = package.rsplit("@", 1)
    tarball = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not tarball.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return tarball


def members(tarball: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """(path inside the package, content) of every file whose path ends with ``suffix``."""
    with tarfile.open(tarball) as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.name.endswith(suffix) else None
            if content:
                yield entry.name.removeprefix("package/"), content.read()


def square(picture: Image.Image) -> np.ndarray:
    """Any RGBA picture -> uint8 ``[64, 64, 3]``, centred on white."""
    picture = picture.convert("RGBA")
    side = max(picture.size)
    ground = Image.new("RGBA", (side, side), "white")
    corner = ((side - picture.width) // 2, (side - picture.height) // 2)
    ground.alpha_composite(picture, corner)
    return np.asarray(ground.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def render_svg(icon: dict, defaults: dict) -> np.ndarray:
    """An entry of an Iconify set -> uint8 ``[64, 64, 3]``."""
    import resvg_py

    box = [icon.get(k, defaults.get(k, d)) for k, d in
           (("left", 0), ("top", 0), ("width", 16), ("height", 16))]  # fmt: skip
    view = " ".join(str(number) for number in box)
    # xlink is declared because some bodies use it without saying so.
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="{view}" width="{box[2]}" height="{box[3]}">{icon["body"]}</svg>')  # fmt: skip
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * SUPERSAMPLE, skip_system_fonts=True)
    data = base64.b64decode(png) if isinstance(png, str) else bytes(png)
    return square(Image.open(io.BytesIO(data)))


def raw_pictures(folder: Path, by_code: dict[str, str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(style, name, pixels) of every picture of every set."""
    for style, package in WEBP_SETS.items():
        for path, data in members(fetch(package, folder), ".webp"):
            name = by_code.get(Path(path).stem.upper().replace("-FE0F", ""))
            if name:
                yield style, name, square(Image.open(io.BytesIO(data)))
    for style, package in SVG_SETS.items():
        icons = next(data for path, data in members(fetch(package, folder), "icons.json"))
        icon_set = json.loads(icons)
        for name, icon in icon_set["icons"].items():
            if not TONE.search(name):
                yield style, name, render_svg(icon, icon_set)


def collect(folder: Path) -> tuple[np.ndarray, list[Picture]]:
    """All pictures uint8 ``[N, 64, 64, 3]`` and what is known of each."""
    texts = members(fetch(CAPTIONS, folder), "en/data.json")
    emoji = json.loads(next(data for path, data in texts if path == "en/data.json"))
    by_code = {e["hexcode"].replace("-FE0F", ""): e["label"] for e in emoji}
    by_name = {squeeze(e["label"]): e["label"] for e in emoji}
    known = set(animals())
    pixels, entries = [], []
    for style, name, image in raw_pictures(folder, by_code):
        label = by_name.get(squeeze(name), "")
        # A name of this set that runs words together reads as no English at all.
        if not label and style != "fxemoji":
            label = re.sub(r"-\d+$", "", name).replace("-", " ")
        animal = animal_of(name, known)
        if (style, name) in NO_ANIMALS:
            continue
        if (animal or label) and not any(word in label for word in LEFT_OUT):
            pixels.append(image)
            entries.append(Picture(style, name, with_article(animal or label), animal))
    return np.stack(pixels), entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and results")
    arguments = parser.parse_args()
    pixels, entries = collect(arguments.work / "npm")
    np.savez_compressed(arguments.work / "pictures.npz", pixels=pixels)
    listing = json.dumps([asdict(entry) for entry in entries], indent=0, ensure_ascii=False)
    (arguments.work / "pictures.json").write_text(listing, encoding="utf-8")
    found = [entry.animal for entry in entries if entry.animal]
    captions = {entry.caption for entry in entries}
    print(f"{len(entries)} pictures with {len(captions)} captions")
    print(f"{len(found)} of them show {len(set(found))} animals")


if __name__ == "__main__":
    main()
