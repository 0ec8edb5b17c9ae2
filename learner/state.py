"""The learner's state as it is saved: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch

from actors.policy import Entry, LoraSnapshot, PolicyVersion
from learner.advantages import PromptStatistics


@dataclass(frozen=True, slots=True)
class LearnerState:
    """All that the learner would need to go on from here; random numbers come from ids and need no state."""

    version: int
    tensors: bytes
    """safetensors: optimizer moments and the snapshots that may still be asked for."""
    facts: str
    """JSON: optimizer step, prompt statistics, digests."""


def save_state(
    version: int,
    published: Mapping[int, LoraSnapshot],
    lora: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    statistics: PromptStatistics,
) -> LearnerState:
    """Collect the state; the newest published snapshot stands for the adapter itself."""
    tensors = {f"snapshot.{v}": torch.from_numpy(snapshot.buffer) for v, snapshot in published.items()}
    optimizer_step = 0
    for name, parameter in lora.items():
        if parameter in optimizer.state:
            moments = optimizer.state[parameter]
            tensors[f"mean.{name}"] = moments["exp_avg"]
            tensors[f"square.{name}"] = moments["exp_avg_sq"]
            optimizer_step = int(moments["step"])
    facts = {
        "optimizer_step": optimizer_step,
        "prompts": {prompt: list(rewards) for prompt, rewards in statistics.rewards.items()},
        "digests": {v: snapshot.digest for v, snapshot in published.items()},
    }
    return LearnerState(version, safetensors.torch.save(tensors), json.dumps(facts))


def saved_snapshots(state: LearnerState, manifest: tuple[Entry, ...]) -> dict[int, LoraSnapshot]:
    """Published snapshots by version."""
    tensors, digests = safetensors.torch.load(state.tensors), json.loads(state.facts)["digests"]
    return {
        int(v): LoraSnapshot(PolicyVersion(int(v)), digest, manifest, tensors[f"snapshot.{v}"].numpy())
        for v, digest in digests.items()
    }


def saved_prompt_rewards(state: LearnerState) -> dict[str, list[float]]:
    """The newest rewards of each prompt, oldest first."""
    return json.loads(state.facts)["prompts"]


def restore_optimizer(
    state: LearnerState, lora: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Put AdamW's moments back; before the first optimizer step there are none."""
    optimizer_step = json.loads(state.facts)["optimizer_step"]
    if not optimizer_step:
        return
    tensors = safetensors.torch.load(state.tensors)
    for name, parameter in lora.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(optimizer_step)),
            "exp_avg": tensors[f"mean.{name}"].to(parameter.device),
            "exp_avg_sq": tensors[f"square.{name}"].to(parameter.device),
        }
