"""clip_score and pickscore against the formulas of their publications, computed without the code under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

import rewards.bundled
from rewards.clip_model import load_clip
from rewards.clip_score import build_clip_score, build_pickscore
from rewards.config import RewardConfig
from rewards.reward import Status
from rewards.worker import build_reward
from tests.rewards.tiny_models import pictures, save_clip

PROMPTS = ("a cat", "a dog and a fox", "a fox")
NOTHING: tuple[dict[str, Any], ...] = ({}, {}, {})
BUNDLED = Path(rewards.bundled.__file__).parent / "clip" / "model.safetensors"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def settings(folder: Path | str, **others: Any) -> RewardConfig:
    return RewardConfig(name="clip_score", clip={"model": str(folder), **others}, device="cpu")  # type: ignore[arg-type]


def pixels_by_hand(images: np.ndarray) -> torch.Tensor:
    """Resized by Pillow to 32, divided by 255 once, then the folder's mean and deviation."""
    small = [Image.fromarray(i.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BICUBIC) for i in images]
    values = torch.from_numpy(np.stack([np.asarray(image) for image in small])).float() / 255
    values = (values - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    return values.permute(0, 3, 1, 2)


@torch.inference_mode()
def cosines_by_hand(folder: Path, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """By the whole model's own logits, whose factor is taken out again."""
    model = CLIPModel.from_pretrained(folder)
    tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    logits = model(pixel_values=pixels_by_hand(images), **tokens).logits_per_image
    return (logits.diagonal() / model.logit_scale.exp()).numpy()


def test_clip_score_is_a_hundred_times_the_cosine(clip: Path) -> None:
    scores = build_reward(settings(clip))(pictures(), PROMPTS, NOTHING)
    wanted = 100 * cosines_by_hand(clip, pictures(), list(PROMPTS))
    np.testing.assert_allclose(scores.values, wanted, atol=2e-3)
    assert scores.values.dtype == np.float32
    assert np.ptp(scores.values) > 1
    assert not scores.failures


def test_it_may_be_negative(clip: Path) -> None:
    texts = ["a cat", "a dog", "a fox", "fox fox", "cat dog"]
    grid = [cosines_by_hand(clip, pictures(), [text] * 3) for text in texts]
    text = texts[int(np.argmin(np.array(grid).min(axis=1)))]
    assert np.min(grid) < 0
    values = build_clip_score(settings(clip))(pictures(), [text] * 3, NOTHING).values
    assert np.min(values) == pytest.approx(100 * np.min(grid), abs=2e-3)


def test_pickscore_is_the_cosine_times_the_models_own_factor(clip: Path) -> None:
    values = build_pickscore(settings(clip))(pictures(), PROMPTS, NOTHING).values
    np.testing.assert_allclose(values, np.exp(3.0) * cosines_by_hand(clip, pictures(), list(PROMPTS)), atol=1e-3)


def test_the_template_goes_round_the_prompt(clip: Path) -> None:
    values = build_clip_score(settings(clip, template="a dog and {}"))(pictures(), PROMPTS, NOTHING).values
    texts = [f"a dog and {prompt}" for prompt in PROMPTS]
    np.testing.assert_allclose(values, 100 * cosines_by_hand(clip, pictures(), texts), atol=2e-3)


def test_neither_neighbours_nor_what_was_asked_before_change_a_bit_of_a_text(clip: Path) -> None:
    one, two = load_clip(str(clip), settings(clip)), load_clip(str(clip), settings(clip))
    alone = one.text_embeddings(["a cat"])
    assert two.text_embeddings(["a dog and a fox and a cat", "a cat"])[1].tobytes() == alone.tobytes()


def test_an_image_does_not_depend_on_its_neighbours(clip: Path) -> None:
    reward = build_clip_score(settings(clip))
    together = reward(pictures(), PROMPTS, NOTHING).values
    alone = [reward(pictures()[i : i + 1], PROMPTS[i : i + 1], [{}]).values[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_an_empty_prompt_is_no_number_and_costs_only_itself(clip: Path) -> None:
    scores = build_clip_score(settings(clip))(pictures(), ("a cat", " \n", "a fox"), NOTHING)
    assert {i: status for i, (status, _) in scores.failures.items()} == {1: Status.INVALID}
    assert "prompt is empty" in scores.failures[1][1]
    fixed = build_clip_score(settings(clip, template="a cat"))(pictures(), ("", "", ""), NOTHING)
    assert not fixed.failures


def test_a_prompt_of_ten_thousand_letters_is_cut_off_where_the_model_ends(clip: Path) -> None:
    reward = build_clip_score(settings(clip))
    long = "a dog and a fox " * 625
    assert len(long) == 10_000
    value = reward(pictures()[:1], [long], [{}]).values[0]
    tokens = CLIPTokenizer.from_pretrained(clip)(long)["input_ids"]
    kept = torch.tensor([[*tokens[:23], tokens[-1]]])
    with torch.inference_mode():
        model = CLIPModel.from_pretrained(clip)
        logits = model(input_ids=kept, pixel_values=pixels_by_hand(pictures()[:1])).logits_per_image
    assert value == pytest.approx(100 * float(logits) / np.exp(3.0), abs=2e-3)


def test_provenance_names_weights_preprocessing_and_versions_but_no_path(clip: Path) -> None:
    import hashlib

    digest = hashlib.sha256((clip / "model.safetensors").read_bytes()).hexdigest()[:16]
    origin = build_clip_score(settings(clip)).provenance
    for part in (digest, "100 x cosine to '{}'", '"image_mean": [0.4, 0.5, 0.6]', torch.__version__):
        assert part in origin
    assert str(clip) not in origin
    assert origin != build_pickscore(settings(clip)).provenance


def test_missing_weights_are_no_random_ones(clip: Path, tmp_path: Path) -> None:
    folder = copied(clip, tmp_path)
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"rewards.clip.model: .* has no weights for visual_projection.weight"):
        build_clip_score(settings(folder))


def test_weights_of_another_shape_are_refused(clip: Path, tmp_path: Path) -> None:
    folder = copied(clip, tmp_path)
    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"] = torch.zeros(768, 17)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"visual_projection.weight is \(768, 17\), not \(768, 16\)"):
        build_clip_score(settings(folder))


def test_a_damaged_or_missing_folder_is_one_line(clip: Path, tmp_path: Path) -> None:
    folder = copied(clip, tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    for place, words in (
        (folder, "cannot be loaded as CLIPModel"),
        (tmp_path / "none", "give a folder, `bundled` or a hub"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            build_clip_score(settings(place))
        assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line_with_a_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"openai/clip-vit-large-patch14 is neither here nor fetched .* give a folder"):
        build_clip_score(RewardConfig(name="clip_score"))


def test_pickscore_takes_the_published_preprocessing_where_the_folder_has_none(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = save_clip(tmp_path / "bare", processor=False)
    asked: list[str] = []

    def fetched(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert "*.safetensors" not in allow_patterns
        return str(clip)

    monkeypatch.setattr("rewards.model_files.snapshot_download", fetched)
    values = build_pickscore(settings(bare))(pictures(), PROMPTS, NOTHING).values
    assert asked == ["laion/CLIP-ViT-H-14-laion2B-s32B-b79K"]
    np.testing.assert_array_equal(values, build_pickscore(settings(clip))(pictures(), PROMPTS, NOTHING).values)
    assert len(asked) == 1


@pytest.mark.parametrize(("device", "words"), [("cuda:99", "torch sees"), ("gpu", "is no device of torch")])
def test_a_device_that_is_not_there(clip: Path, device: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_clip_score(settings(clip).model_copy(update={"device": device}))


def test_a_call_leaves_the_threads_as_they_were(clip: Path) -> None:
    before = torch.get_num_threads()
    build_clip_score(settings(clip).model_copy(update={"threads": before + 1}))(pictures(), PROMPTS, NOTHING)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not BUNDLED.exists(), reason="no bundled model")
def test_the_bundled_model_tells_a_fox_from_a_bee() -> None:
    place = Path(rewards.bundled.__file__).parents[2] / "actors" / "bundled" / "pictures" / "noto"
    names = ("fox", "bee")
    images = np.stack([np.asarray(Image.open(place / f"{name}.png").convert("RGB")) for name in names])
    reward = build_clip_score(settings("bundled"))
    right = reward(images.transpose(0, 3, 1, 2), ("a fox", "a bee"), NOTHING[:2]).values
    wrong = reward(images.transpose(0, 3, 1, 2), ("a bee", "a fox"), NOTHING[:2]).values
    assert (right > wrong + 5).all()


def copied(source: Path, target: Path) -> Path:
    folder = target / "copy"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
