import hashlib
from collections import Counter
from importlib import resources

import pytest

from actors.prompts import PromptSet, load_prompts
from actors.shipped_prompts import fill, plural, shipped_names

PLURALS = [
    "cats", "dogs", "horses", "monkeys", "rabbits", "zebras", "spiders", "birds", "sheep", "deer", "cows", "goats",
    "lions", "tigers", "bears", "raccoons", "foxes", "wolves", "lizards", "beetles", "ants", "butterflies", "fish",
    "sharks", "whales", "dolphins", "squirrels", "mice", "rats", "snakes", "turtles", "frogs", "chickens", "ducks",
    "geese", "bees", "pigs", "turkeys", "flies", "llamas", "camels", "bats", "gorillas", "hedgehogs", "kangaroos",
]  # fmt: skip
"""Of the 45 animals in their order; agrees with the package inflect 7.6.0."""


@pytest.mark.parametrize(
    ("name", "size", "first", "last"),
    [
        ("animals45", 45, "a cat", "a kangaroo"),
        ("imagenet_animals", 398, "a tench", "a puffer"),
        ("imagenet_classes", 1000, "a tench", "a toilet tissue"),
        ("imagenet_dogs", 118, "a Chihuahua", "a Mexican hairless"),
        ("animals_activities", 135, "a cat washing dishes", "a kangaroo playing chess"),
        ("counting", 360, "two cats", "nine kangaroos"),
    ],
)
def test_sizes_and_ends_of_the_sets(name: str, size: int, first: str, last: str):
    prompts = load_prompts(name, "a(n) {}", None).prompts
    assert (len(prompts), prompts[0], prompts[-1]) == (size, first, last)
    twice = {prompt for prompt, times in Counter(prompts).items() if times > 1}
    assert twice == ({"a crane", "a maillot"} if name == "imagenet_classes" else set())


def test_no_other_set_is_shipped():
    assert shipped_names() == [
        *("animals45", "animals_activities", "counting", "imagenet_animals", "imagenet_classes", "imagenet_dogs")
    ]


def test_the_names_are_those_of_the_sources():
    # Over the first names of the package's imagenet1k_label_to_names.json, joined by line ends.
    classes = load_prompts("imagenet_classes", "{}", None).prompts
    digest = hashlib.sha256("\n".join(classes).encode()).hexdigest()
    assert digest == "1f386e0d1cb6e28b9c2dac651c3dea6801e98ad1b41a14ce6bb1a093d72069f5"
    known = {134: "crane", 207: "golden retriever", 388: "giant panda", 398: "abacus", 517: "crane", 817: "sports car"}
    assert {number: classes[number] for number in known} == known
    assert load_prompts("imagenet_animals", "{}", None).prompts == classes[:398]
    assert load_prompts("imagenet_dogs", "{}", None).prompts == classes[151:269]


def test_names_are_put_into_the_template_and_sentences_are_not():
    assert load_prompts("animals45", "a photo of a(n) {}", 1) == PromptSet(
        ("a photo of a cat",), {"a photo of a cat": {}}
    )
    for sentences in ("animals_activities", "counting"):
        assert load_prompts(sentences, "a photo of {}", None) == load_prompts(sentences, "{}", None)


def test_the_alignment_set_pairs_every_animal_with_every_activity():
    animals = load_prompts("animals45", "a(n) {}", None).prompts
    prompts = load_prompts("animals_activities", "{}", None).prompts
    doing = ("washing dishes", "riding a bike", "playing chess")
    assert set(prompts) == {f"{animal} {activity}" for animal in animals for activity in doing}
    assert "an ant riding a bike" in prompts


def test_every_count_is_asked_for_and_answered():
    animals = load_prompts("animals45", "{}", None).prompts
    counted = load_prompts("counting", "{}", None)
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
    expected = {
        f"{word} {many}": {
            "questions": [f"How many {many} are there in this image?", "What animal is in this image?"],
            "answers": [word, one],
        }
        for one, many in zip(animals, PLURALS, strict=True)
        for word in words
    }
    assert counted.metadata == expected
    assert counted.prompts == tuple(expected)


def test_plurals_of_the_animals():
    assert [plural(animal) for animal in load_prompts("animals45", "{}", None).prompts] == PLURALS


def test_the_article_follows_the_sound():
    assert fill("a(n) {}", "ant") == "an ant"
    assert fill("a(n) {} riding a bike", "fox") == "a fox riding a bike"
    assert fill("{}", "ant") == "ant"
    names = load_prompts("imagenet_classes", "{}", None).prompts
    prompts = load_prompts("imagenet_classes", "a(n) {}", None).prompts
    by_letter = {f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" for name in names}
    # The package inflect 7.6.0 says so, and agrees with the first letter in all other cases.
    by_sound = {"a European fire salamander", "a European gallinule", "an hourglass", "a unicycle"}
    assert set(prompts) - by_letter == by_sound


def test_where_the_sets_come_from_is_written_beside_them():
    readme = (resources.files("actors") / "prompt_sets" / "README.md").read_text("utf-8")
    for name in shipped_names():
        size = len(load_prompts(name, "{}", None).prompts)
        assert f"| `{name}` | {size}" in readme
    assert "998 different" in readme
    assert len(set(load_prompts("imagenet_classes", "{}", None).prompts)) == 998
