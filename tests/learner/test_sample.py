from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.config import ModelConfig
from actors.pretrained import PretrainedPolicy
from learner.sample import main


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    policy = PretrainedPolicy(ModelConfig(path=str(tiny_model)), "cpu", 1)
    with torch.no_grad():
        for parameter in policy.lora.values():
            parameter.add_(0.3)
    policy.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


def halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    sheet = np.asarray(Image.open(path).convert("RGB"))[14:]
    width = (sheet.shape[1] - 8) // 2
    return sheet[:, :width], sheet[:, width + 8 :]


def test_the_left_half_is_the_base_and_the_right_half_is_not(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    words = ["--model", str(tiny_model), "--prompt", "a fox", "-n", "4", "--steps", "3"]
    out, unchanged = tmp_path / "grid.png", tmp_path / "unchanged.png"
    assert main(["--adapter", str(adapter), "--out", str(out), *words]) == 0
    left, right = halves(out)
    assert left.shape == right.shape == (33, 33, 3)  # 2 x 2 images of 16 px, a pixel apart
    assert (left != right).any()

    fresh = PretrainedPolicy(ModelConfig(path=str(tiny_model)), "cpu", 1)
    fresh.save_adapter(tmp_path / "fresh")
    assert main(["--adapter", str(tmp_path / "fresh"), "--out", str(unchanged), *words]) == 0
    base, with_fresh = halves(unchanged)
    assert (base == with_fresh).all(), "a fresh adapter changes nothing"
    assert (base == left).all(), "the base does not depend on the adapter"


def test_a_folder_without_an_adapter_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    assert main(["--adapter", str(tmp_path), "--prompt", "a fox", "--out", str(out)]) == 2
    assert "has no pytorch_lora_weights.safetensors" in capsys.readouterr().err
    assert not out.exists()
