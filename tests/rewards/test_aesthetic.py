"""The aesthetic predictor against the published formula, with a head of random weights in the published shapes.

`DDPO_AESTHETIC_HEAD=…/sac+logos+ava1-l14-linearMSE.pth` runs it with the real head too.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel

from rewards.config import RewardConfig
from rewards.reward import RewardRequest, Status
from rewards.worker import build_reward, build_worker
from tests.rewards.test_clip_score import pixels_by_hand
from tests.rewards.tiny_models import pictures, save_clip

REAL_HEAD = os.environ.get("DDPO_AESTHETIC_HEAD", "")


class Published(nn.Module):
    """The predictor's MLP with its dropouts, for `load_state_dict`."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def mlp() -> Published:
    torch.manual_seed(1)
    return Published().eval()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, mlp: Published) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.pth"
    torch.save(mlp.state_dict(), path)
    return path


def settings(clip: Path, head: Path | str) -> RewardConfig:
    values = {"name": "aesthetic", "clip": {"model": str(clip)}, "aesthetic": {"head": str(head)}, "device": "cpu"}
    return RewardConfig.model_validate(values)


@torch.inference_mode()
def by_hand(clip: Path, mlp: Published) -> np.ndarray:
    """Pillow's resizing, one division by 255, the model's embedding, length 1, the MLP."""
    model = CLIPModel.from_pretrained(clip)
    embedding = model.get_image_features(pixel_values=pixels_by_hand(pictures()))
    embedding = getattr(embedding, "pooler_output", embedding)
    return mlp.layers(embedding / embedding.norm(dim=-1, keepdim=True)).squeeze(1).numpy()


def scored(config: RewardConfig) -> np.ndarray:
    scores = build_reward(config)(pictures(), ("", "x" * 10_000, "a cat"), ({}, {}, {}))
    assert not scores.failures
    return np.asarray(scores.values)


def test_it_is_the_published_formula(clip: Path, head: Path, mlp: Published) -> None:
    values = scored(settings(clip, head))
    np.testing.assert_allclose(values, by_hand(clip, mlp), atol=1e-5)
    assert np.ptp(values) > 1e-3


def test_a_head_is_a_file_of_either_kind_or_a_folder_with_one(clip: Path, head: Path, tmp_path: Path) -> None:
    save_file(torch.load(head, weights_only=True), tmp_path / "head.safetensors")
    (tmp_path / "README.md").write_text("a head")
    values = scored(settings(clip, head))
    for place in (tmp_path / "head.safetensors", tmp_path, head.parent):
        np.testing.assert_array_equal(scored(settings(clip, place)), values)
    (tmp_path / "other.pth").write_bytes(head.read_bytes())
    with pytest.raises(ValueError, match="holds 2 files"):
        build_reward(settings(clip, tmp_path))


@pytest.mark.skipif(not REAL_HEAD, reason="DDPO_AESTHETIC_HEAD names no file")
def test_the_real_head(clip: Path) -> None:
    mlp = Published().eval()
    mlp.load_state_dict(torch.load(REAL_HEAD, map_location="cpu", weights_only=True))
    values = scored(settings(clip, REAL_HEAD))
    np.testing.assert_allclose(values, by_hand(clip, mlp), atol=1e-4)
    assert "head sha256 21dd590f" in build_reward(settings(clip, REAL_HEAD)).provenance


class Evil:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(clip: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"layers.0.weight": Evil(mark)}, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(mark)))
    for name in ("torch.pth", "plain.pth"):
        with pytest.raises(ValueError, match=r"rewards.aesthetic.head: .* is no file of weights") as caught:
            build_reward(settings(clip, tmp_path / name))
        assert "\n" not in str(caught.value)
        assert not mark.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert mark.exists(), "this pickle is harmless, so nothing was tested"


def without(weights: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in weights.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: without(w, "layers.6.bias"), "has no layers.6.bias"),
        (lambda w: {**w, "layers.9.bias": torch.zeros(1)}, "an unknown layers.9.bias"),
        (lambda w: {**w, "layers.4.weight": torch.zeros(64, 127)}, r"layers.4.weight of shape \(64, 127\)"),
        (lambda w: {**w, "layers.7.bias": torch.tensor([float("nan")])}, "not finite"),
        (lambda w: Published(512).state_dict(), "takes embeddings of 512 numbers, the model of clip.model gives 768"),
        (lambda w: [1, 2], "something else than named weights"),
    ],
    ids=["missing", "unknown", "shape", "nan", "width", "list"],
)
def test_a_head_that_does_not_fit_is_one_line(
    clip: Path, mlp: Published, tmp_path: Path, spoil: Any, words: str
) -> None:
    torch.save(spoil(dict(mlp.state_dict())), tmp_path / "head.pth")
    with pytest.raises(ValueError, match=words) as caught:
        build_reward(settings(clip, tmp_path / "head.pth"))
    assert "\n" not in str(caught.value)


def test_no_head_and_damaged_heads(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.safetensors").write_bytes(b"{}")
    for name in ("", "none/head.pth", "trl-lib/ddpo-aesthetic-predictor", f"{tmp_path}/cut.pth"):
        with pytest.raises(ValueError, match=r"rewards.aesthetic.head: .*sac\+logos\+ava1-l14-linearMSE.pth") as caught:
            build_reward(settings(clip, name))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is no file of weights"):
        build_reward(settings(clip, tmp_path / "cut.safetensors"))


def test_an_embedding_of_zeros_is_invalid_and_no_number(tmp_path: Path, head: Path) -> None:
    from safetensors.torch import load_file

    folder = save_clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] = torch.zeros(768, 16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    request = RewardRequest(1, ("a cat",) * 3, ({},) * 3)
    (result,) = build_worker(settings(folder, head)).run((request,), pictures())
    assert result.statuses == (Status.INVALID,) * 3
    assert np.isnan(result.values).all()
