"""A small animal classifier, trained from scratch on real pictures alone, that judges samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from actors.bundled.pictures import animals
from actors.bundled.work import Pictures


def new_judge(classes: int) -> nn.Sequential:
    """0.4 M parameters; pixels ``[B, 3, 64, 64]`` in [-1, 1] to logits ``[B, classes]``."""
    layers: list[nn.Module] = []
    width_before = 3
    for width in (32, 64, 128, 192):
        layers += [
            nn.Conv2d(width_before, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        width_before = width
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * width_before, classes),
    )


def moved(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image turned up to 20 degrees, scaled, shifted and perhaps mirrored, on white."""
    size = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=random)

    angle, scale = uniform(-0.35, 0.35), uniform(0.85, 1.25)
    mirror = torch.where(torch.rand(size, generator=random) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [
        torch.stack([cos * mirror, -sin, uniform(-0.15, 0.15)], 1),
        torch.stack([sin * mirror, cos, uniform(-0.15, 0.15)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Outside the picture grid_sample gives zeros, so sample the distance from white.
    return 1 - functional.grid_sample(1 - images, grid, align_corners=False)


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Varied copies of ``[B, 3, 64, 64]``: place, colours, sharpness, noise, a patch missing."""
    images = moved(images, random)
    size = len(images)
    gain = 1 + 0.35 * (2 * torch.rand(size, 3, 1, 1, generator=random) - 1)
    grey = images.mean(1, keepdim=True)
    fade = 0.5 * torch.rand(size, 1, 1, 1, generator=random)
    images = 1 - (1 - images.lerp(grey, fade)) * gain
    # Samples come through an autoencoder and are softer than drawings.
    half = functional.avg_pool2d(images, 2)
    soft = functional.interpolate(half, scale_factor=2.0, mode="bilinear")
    images = images.lerp(soft, torch.rand(size, 1, 1, 1, generator=random))
    images = images + 0.1 * torch.rand(size, 1, 1, 1, generator=random) * torch.randn(images.shape, generator=random)
    corner = torch.randint(0, 52, (size, 2), generator=random).tolist()
    for image, (top, left) in zip(images, corner, strict=True):
        image[:, top : top + 16, left : left + 16] = 1.0
    return images.clamp(-1, 1)


def labels_of(pictures: Pictures) -> Tensor:
    """Int64 ``[N]``: place in the list of animals, -1 for other pictures."""
    place = {name: index for index, name in enumerate(animals())}
    return torch.tensor([place.get(entry["animal"], -1) for entry in pictures.entries])


def train_judge(pictures: Pictures, rows: Tensor, steps: int, seed: int) -> nn.Sequential:
    """Trains on the pictures at ``rows``, every animal equally often."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    images, labels = pictures.batch(rows), labels_of(pictures)[rows]
    weights = 1.0 / torch.bincount(labels)[labels]
    judge = new_judge(len(animals()))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.multinomial(weights, 96, replacement=True, generator=random)
        logits = judge(augmented(images[chosen], random))
        loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


@torch.inference_mode()
def accuracy(judge: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of images whose animal is the judge's first choice, and among its first five."""
    ranked = judge(images).topk(5).indices
    hits = ranked == labels[:, None]
    return hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()
