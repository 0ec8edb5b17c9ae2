"""Whether a vision-language model, asked about an image, gives the answers that the prompt expects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores, Status
from rewards.vlm import Answer, NoAnswer, Vlm, build_vlm

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBERS = {word: number for number, word in enumerate((*UNITS, *TEENS))} | {
    f"{ten}-{UNITS[unit]}" if unit else ten: 20 + 10 * place + unit
    for place, ten in enumerate(TENS)
    for unit in range(10)
}
WORDS = re.compile(rf"\b({'|'.join(TENS)})[ -]({'|'.join(UNITS[1:])})\b|\b({'|'.join((*UNITS, *TEENS, *TENS))})\b")
CURE = "use prompts.source = counting, or a .jsonl file with questions and answers"


@dataclass(frozen=True, slots=True)
class Vqa:
    """Share of a prompt's questions that are answered as expected: 0 to 1.

    `llava_strict_satisfaction` of kvablack/ddpo-pytorch, where an answer is right if it contains the expected one, so
    that `ant` is in `elephant`, `ten` in `often` and `1` in `12`. Here whole words count, an `s` or `es` may follow,
    case is ignored, and `3` is `three`. Questions and answers come from the prompt's metadata. The note of an image is
    what the model said.
    """

    vlm: Vlm
    name: str = "vqa"

    @property
    def provenance(self) -> str:
        return f"vqa: share of answers with the expected words, numbers as words or digits; {self.vlm.provenance}"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        failures: dict[int, tuple[Status, str]] = {}
        asked: list[tuple[int, str, str]] = []
        for index, of_prompt in enumerate(metadata):
            try:
                asked += [(index, question, answer) for question, answer in pairs(of_prompt)]
            except ValueError as error:
                failures[index] = (Status.INVALID, str(error))
        right: dict[int, list[bool]] = {}
        heard: list[list[str]] = [[] for _ in prompts]
        for (index, _, expected), answer in zip(asked, self._answers(images, asked), strict=True):
            if isinstance(answer, NoAnswer):
                failures.setdefault(index, (answer.status, answer.reason))
            else:
                right.setdefault(index, []).append(contains(answer, expected))
                heard[index].append(answer)
        values = [np.nan if i in failures else float(np.mean(right[i])) for i in range(len(prompts))]
        return Scores(np.array(values, np.float32), tuple(" | ".join(said) for said in heard), failures)

    def _answers(self, images: Images, asked: Sequence[tuple[int, str, str]]) -> list[Answer]:
        """As many questions at once as there are images, so that `batch_size` bounds the memory here too."""
        answers: list[Answer] = []
        for start in range(0, len(asked), len(images)):
            some = asked[start : start + len(images)]
            answers += self.vlm.answers(images[[index for index, _, _ in some]], [question for _, question, _ in some])
        return answers


def pairs(metadata: Metadata) -> list[tuple[str, str]]:
    """Questions with their expected answers.

    Raises:
        ValueError: there are none, or they do not fit together; the message names the cure.
    """
    if not metadata.get("questions"):
        raise ValueError(f"this prompt has no questions; {CURE}")
    questions, answers = _texts(metadata["questions"]), _texts(metadata.get("answers"))
    if not questions or len(questions) != len(answers):
        raise ValueError(f"this prompt's questions and answers are not lists of as many texts each; {CURE}")
    return list(zip(questions, answers, strict=True))


def contains(answer: str, expected: str) -> bool:
    """Whether the words of `expected` stand in `answer` one after another."""
    wanted = re.escape(with_digits(expected.strip())).replace(r"\ ", r"\s+")
    return re.search(rf"(?<!\w){wanted}(?:s|es)?(?!\w)", with_digits(answer)) is not None


def with_digits(text: str) -> str:
    """In lower case, numbers up to ninety-nine as digits."""
    return WORDS.sub(lambda match: str(NUMBERS[match[3] or f"{match[1]}-{match[2]}"]), text.casefold())


def _texts(values: object) -> list[str]:
    """Those of a list, or none if it is no list of texts."""
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) and value.strip() for value in values):
        return []
    return list(values)


def build(config: RewardConfig) -> Vqa:
    """Raises:
    ValueError: the model is not there, or cannot be asked anything; one line.
    """
    vlm = build_vlm(config)
    if vlm.captions_only:
        raise ValueError(
            f"rewards.vlm.model: {config.vlm.model} only captions; vqa needs one that answers questions, such as "
            "llava-hf/llava-1.5-7b-hf"
        )
    return Vqa(vlm)
