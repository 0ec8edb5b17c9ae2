"""Drawing trajectories: a task and the weights it needs in, images and a trajectory out."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from actors.config import DenoisingConfig
from actors.ddim import sample_step, step_gaussian, step_log_prob
from actors.denoiser import guided_output
from actors.policy import LoraSnapshot, WeightsError
from actors.pretrained import PretrainedPolicy
from actors.trajectory import SampleTask, Trajectory


class RolloutWorker:
    """Draws one task after another; weights are swapped between tasks, never during one."""

    def __init__(self, policy: PretrainedPolicy, denoising: DenoisingConfig, threads: int) -> None:
        self._policy = policy
        self._guidance_scale = denoising.guidance_scale
        self._schedule = policy.schedule(denoising.steps, denoising.eta)
        self._threads = threads
        self._applied: LoraSnapshot | None = None
        self._digest = ""

    def run(
        self, task: SampleTask, snapshot: LoraSnapshot
    ) -> tuple[UInt8[np.ndarray, "batch 3 height width"], Trajectory]:
        """Draw `task` with exactly the weights of `snapshot`.

        Raises:
            WeightsError: the snapshot is not the version that the task asks for, or is damaged.
        """
        torch.set_num_threads(self._threads)
        self._take(snapshot, task)
        latents, log_probs = self._denoise(task)
        images = self._policy.decode(latents[:, -1].float())
        trajectory = Trajectory(
            task.task_id,
            snapshot.version,
            self._digest,
            task.prompts,
            latents.cpu().numpy(),
            self._schedule.timesteps.cpu().numpy(),
            self._schedule.sigmas.cpu().numpy(),
            log_probs.cpu().numpy(),
        )
        return images.cpu().numpy(), trajectory

    def _take(self, snapshot: LoraSnapshot, task: SampleTask) -> None:
        if snapshot.version != task.version:
            raise WeightsError(f"task {task.task_id} needs version {task.version}, got version {snapshot.version}")
        if self._applied is None or self._applied.version != snapshot.version or self._digest != snapshot.digest:
            self._digest = self._policy.apply(snapshot)
            self._applied = snapshot

    @torch.inference_mode()
    def _denoise(
        self, task: SampleTask
    ) -> tuple[Float[Tensor, "batch step_plus_1 channel height width"], Float[Tensor, "batch step"]]:
        policy, schedule = self._policy, self._schedule
        noise = draw_noise(task.seeds, schedule.num_steps, policy.latent_shape).to(policy.device)
        prompt, unconditional = policy.embed(task.prompts), policy.embed(("",))[0]
        latents = noise[:, 0].to(policy.storage)
        chain, log_probs = [latents], []
        stochastic = schedule.stochastic.tolist()
        for step in range(schedule.num_steps):
            steps = torch.full((len(latents),), step, device=policy.device)
            present = latents.float()
            output = guided_output(
                policy, present, schedule.timesteps[steps], prompt, unconditional, self._guidance_scale
            )
            mean, std = step_gaussian(schedule, steps, present, output, policy.prediction)
            latents = sample_step(mean, std, noise[:, step + 1], policy.storage)
            log_probs.append(
                step_log_prob(latents, mean, std) if stochastic[step] else torch.zeros_like(mean[:, 0, 0, 0])
            )
            chain.append(latents)
        return torch.stack(chain, 1), torch.stack(log_probs, 1)


def draw_noise(
    seeds: tuple[int, ...], num_steps: int, shape: tuple[int, int, int]
) -> Float[Tensor, "batch step_plus_1 channel height width"]:
    """The noise of every sample's x_T and steps, each from its own seed, on the CPU so that devices agree."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn((num_steps + 1, *shape), generator=generator) for generator in generators])
