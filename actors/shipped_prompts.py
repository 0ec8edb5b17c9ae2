"""The shipped prompt sets: names, and sentences composed from the 45 animals; sources in prompt_sets/README.md."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

_ANIMALS = "animals45.txt"
_CLASSES = "imagenet_classes.txt"

NAMES = {
    "animals45": (_ANIMALS, slice(None)),
    "imagenet_animals": (_CLASSES, slice(0, 398)),
    "imagenet_classes": (_CLASSES, slice(None)),
    "imagenet_dogs": (_CLASSES, slice(151, 269)),
}
"""Sets of names: file, and which of its entries."""

ACTIVITIES = ("washing dishes", "riding a bike", "playing chess")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
IRREGULAR = {"sheep": "sheep", "deer": "deer", "fish": "fish", "mouse": "mice", "goose": "geese", "wolf": "wolves"}
"""Plurals of the animals that follow no rule."""

Prompts = tuple[list[str], dict[str, dict[str, Any]]]
"""Prompts in order, and the metadata of those that have any."""


def shipped_prompts(name: str, template: str) -> Prompts | None:
    """A shipped set by name, or None; `template` goes round names, sentences ignore it."""
    if name in NAMES:
        file, part = NAMES[name]
        return [fill(template, entry) for entry in _entries(file)[part]], {}
    return SENTENCES[name]() if name in SENTENCES else None


def shipped_names() -> list[str]:
    return sorted([*NAMES, *SENTENCES])


def animals_activities() -> Prompts:
    """The paper's prompts for image-text alignment."""
    return [fill(f"a(n) {{}} {activity}", animal) for animal in _entries(_ANIMALS) for activity in ACTIVITIES], {}


def counting() -> Prompts:
    """`two cats` and so on, with what a vision-language model is asked about the image and should answer."""
    asked = {}
    for animal in _entries(_ANIMALS):
        many = plural(animal)
        questions = [f"How many {many} are there in this image?", "What animal is in this image?"]
        for number in NUMBERS:
            asked[f"{number} {many}"] = {"questions": list(questions), "answers": [number, animal]}
    return list(asked), asked


SENTENCES: dict[str, Callable[[], Prompts]] = {"animals_activities": animals_activities, "counting": counting}
"""Sets of whole sentences."""


def fill(template: str, entry: str) -> str:
    """`a(n) {}` and `ant` give `an ant`; `a(n)` follows the sound of what comes next."""
    return template.replace("a(n) {}", f"{_article(entry)} {{}}").replace("{}", entry)


def plural(animal: str) -> str:
    """Of one of the 45 animals."""
    if animal in IRREGULAR:
        return IRREGULAR[animal]
    if animal.endswith(("s", "x", "sh", "ch")):
        return animal + "es"
    if animal.endswith("y") and animal[-2] not in "aeiou":
        return animal[:-1] + "ies"
    return animal + "s"


def _article(entry: str) -> str:
    """By first letter, save for the sounds of `European`, `unicycle` and `hourglass`, which ImageNet needs."""
    start = entry.lower()
    if start.startswith(("eu", "uni")):
        return "a"
    return "an" if start.startswith(("a", "e", "i", "o", "u", "hour")) else "a"


def _entries(file: str) -> list[str]:
    lines = (resources.files("actors") / "prompt_sets" / file).read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
