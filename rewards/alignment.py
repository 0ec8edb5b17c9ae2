"""Whether an image shows what the prompt says, by what a vision-language model says of it: the paper's alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.bert_score import TokenEncoder, bert_score, load_encoder
from rewards.clip_score import blank_prompts
from rewards.config import AlignmentConfig, RewardConfig
from rewards.reward import Images, Metadata, Scores, Status
from rewards.vlm import NoAnswer, Vlm, build_vlm


@dataclass(frozen=True, slots=True)
class Alignment:
    """BERTScore between what the model says of the image and a sentence with the prompt in it: -1 to 1, 1 where the
    texts are equal. With `minilm` unrelated texts have 0 to 0.4; every encoder has a scale of its own.

    arXiv 2305.13301, section 5.2: the answer of LLaVA to `question`, and BERTScore's recall, not rescaled, by
    microsoft/deberta-xlarge-mnli, layer 40 (kvablack/LLaVA-server). A model that only captions is asked nothing. The
    note of an image is what the model said.
    """

    vlm: Vlm
    encoder: TokenEncoder
    config: AlignmentConfig
    name: str = "alignment"

    @property
    def provenance(self) -> str:
        question = "captions" if self.vlm.captions_only else f"answers to {self.config.question!r}"
        return (
            f"alignment: BERTScore {self.config.measure} of {question} as {self.config.answer_template!r} for "
            f"{self.config.template!r}, encoder {self.encoder.provenance}; {self.vlm.provenance}"
        )

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        values = np.full(len(prompts), np.nan, np.float32)
        failures = dict(blank_prompts(prompts, self.config.template))
        answers = self.vlm.answers(images, [self.config.question] * len(prompts))
        for index, (answer, prompt) in enumerate(zip(answers, prompts, strict=True)):
            if isinstance(answer, NoAnswer):
                failures[index] = (answer.status, answer.reason)
            elif index not in failures:
                values[index] = self._value(answer, prompt)
                if np.isnan(values[index]):
                    failures[index] = (Status.INVALID, f"no word the encoder knows in {answer!r} or the prompt")
        notes = tuple("" if isinstance(answer, NoAnswer) else answer for answer in answers)
        return Scores(values, notes, failures)

    def _value(self, answer: str, prompt: str) -> float:
        candidate = self.encoder.tokens(self.config.answer_template.replace("{}", answer))
        reference = self.encoder.tokens(self.config.template.replace("{}", prompt))
        return getattr(bert_score(candidate, reference), self.config.measure)


def build(config: RewardConfig) -> Alignment:
    """Raises:
    ValueError: a model is not there; one line.
    """
    encoder = load_encoder(config)  # the smaller one first, so that what is missing there is said at once
    return Alignment(build_vlm(config), encoder, config.alignment)
