"""The MLP of the LAION aesthetic predictor, on image embeddings."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from rewards.model_files import HUB_ID, downloaded, reason, sha256

KEY = "aesthetic.head"
LAYERS = (0, 2, 4, 6, 7)
"""Numbers of the linear layers; 1, 3 and 5 are dropouts of the training, and there are no activations."""
WIDTHS = (1024, 128, 64, 16, 1)
"""What each layer gives."""
KINDS = (".safetensors", ".pth")
CURE = "set it to the file sac+logos+ava1-l14-linearMSE.pth of christophschuhmann/improved-aesthetic-predictor"


class AestheticHead:
    """Linear layers one after another, as they were published."""

    def __init__(self, weights: dict[str, Tensor], digest: str) -> None:
        self._layers = [(weights[f"layers.{n}.weight"], weights[f"layers.{n}.bias"]) for n in LAYERS]
        self.digest = digest
        """SHA-256 of the file."""

    def __call__(self, embeddings: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        """Scores of embeddings of length 1."""
        values = embeddings
        for weight, bias in self._layers:
            values = functional.linear(values, weight, bias)
        return values.squeeze(1)


def load_head(name: str, width: int, device: str) -> AestheticHead:
    """Read the file that `aesthetic.head` names, for embeddings of `width` numbers.

    Raises:
        ValueError: there is none, it holds something else than weights, or they do not fit; one line.
    """
    path = head_file(name)
    weights = _read(path)
    expected = _shapes(width)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    if shapes.keys() != expected.keys():
        odd = sorted(shapes.keys() ^ expected.keys())[0]
        raise ValueError(f"rewards.{KEY}: {path} has {'no' if odd in expected else 'an unknown'} {odd}; {CURE}")
    own = shapes["layers.0.weight"][-1:]
    if own != (width,):
        raise ValueError(
            f"rewards.{KEY}: {path} takes embeddings of {own[0] if own else 0} numbers, the model of clip.model gives "
            f"{width}; the LAION head belongs to openai/clip-vit-large-patch14"
        )
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise ValueError(f"rewards.{KEY}: {path} has {key} of shape {shapes[key]}, not {shape}; {CURE}")
        if not torch.isfinite(weights[key]).all():
            raise ValueError(f"rewards.{KEY}: {path} has numbers in {key} that are not finite; fetch it again")
    # Copied, since a tensor that lies in a mapped file is aligned otherwise, which changes last bits of products.
    own_copies = {key: tensor.to(device, torch.float32, copy=True) for key, tensor in weights.items()}
    return AestheticHead(own_copies, sha256(path))


def head_file(name: str) -> Path:
    """The file itself, the only one of its kind in a folder, or in what a hub id holds.

    Raises:
        ValueError: there is none, or several.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = path
    if not name or not path.is_dir():
        if not HUB_ID.fullmatch(name) or path.suffix in KINDS:
            raise ValueError(f"rewards.{KEY}: no file {name or '(empty)'}; {CURE}")
        folder = downloaded(KEY, name, tuple(f"*{kind}" for kind in KINDS), CURE)
    files = sorted(file for file in folder.iterdir() if file.suffix in KINDS)
    if len(files) != 1:
        raise ValueError(f"rewards.{KEY}: {name} holds {len(files)} files ({', '.join(KINDS)}), not one; name the file")
    return files[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        elif path.suffix == ".pth":
            weights = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise ValueError(f"a head ends in {' or '.join(KINDS)}")
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"rewards.{KEY}: {path} is no file of weights ({reason(error)}); {CURE}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ValueError(f"rewards.{KEY}: {path} holds something else than named weights; {CURE}")
    return weights


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, takes, gives in zip(LAYERS, (width, *WIDTHS), WIDTHS, strict=False):
        shapes[f"layers.{number}.weight"], shapes[f"layers.{number}.bias"] = (gives, takes), (gives,)
    return shapes
