"""The learner on real trajectories of the tiny model, in this process."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import DenoisingConfig, ModelConfig
from actors.policy import LoraSnapshot, PolicyVersion, WeightsError
from actors.pretrained import PretrainedPolicy
from actors.rollout import RolloutWorker
from actors.trajectory import SampleTask, Trajectory
from learner.algorithms import DdpoIs
from learner.batch import Pairs, stack
from learner.config import LearnerConfig
from learner.scoring import Scorer
from learner.state import LearnerState
from learner.update import Learner, UpdateReport

DENOISING = DenoisingConfig(steps=4)
REWARDS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.float32)
CLIP_RANGE = 1e-4


def policy(model: Path, lora_seed: int = 1) -> PretrainedPolicy:
    return PretrainedPolicy(ModelConfig(path=str(model)), "cpu", lora_seed)


def learner_of(policy: PretrainedPolicy, lag: int = 0, **settings: Any) -> Learner:
    config = LearnerConfig(**{"learning_rate": 1e-2, "optimizer_steps": 1, "clip_range": CLIP_RANGE, **settings})
    return Learner(policy, DdpoIs(config.clip_range, config.advantage_clip), config, DENOISING, 0, lag)


@pytest.fixture(scope="module")
def worker(tiny_model: Path) -> RolloutWorker:
    return RolloutWorker(policy(tiny_model), DENOISING, threads=1)


def drawn(worker: RolloutWorker, learner: Learner, round_index: int, version: int) -> list[Trajectory]:
    """Two tasks of four samples, two prompts each."""
    tasks = [
        SampleTask(
            task_id,
            round_index,
            ("a cat", "a cat", "a dog", "a dog"),
            tuple(range(task_id * 4, task_id * 4 + 4)),
            PolicyVersion(version),
        )
        for task_id in (2 * round_index, 2 * round_index + 1)
    ]
    return [worker.run(task, learner.published(version))[1] for task in tasks]


def trained(
    learner: Learner, rewards: np.ndarray, *trajectories: Trajectory
) -> tuple[UpdateReport, LoraSnapshot, LearnerState]:
    """Train on a round whose trajectories are of the versions that they say."""
    return learner.update(rewards, tuple(t.version for t in trajectories), *trajectories)


def test_fresh_samples_have_the_learners_own_log_probs(tiny_model: Path, worker: RolloutWorker) -> None:
    learner = learner_of(policy(tiny_model))
    for version in range(3):
        report, _, _ = trained(learner, REWARDS, *drawn(worker, learner, version, version))
        assert report.staleness == 0
        assert report.log_prob_error <= 1e-6
        assert report.first_ratio_error < CLIP_RANGE / 10
        assert report.approx_kl < 1e-12  # of the only optimizer step
        assert report.clip_fraction == 0
        assert report.grad_norm > 0


def test_minibatch_size_only_divides_the_work(tiny_model: Path, worker: RolloutWorker) -> None:
    weights = []
    for minibatch in (3, 8, 100):
        mine = policy(tiny_model)
        before = mine.snapshot(PolicyVersion(0)).buffer
        # A large epsilon, since Adam would else turn the rounding of a gradient near 0 into a whole step.
        learner = learner_of(mine, minibatch=minibatch, adam_epsilon=1e-2)
        _, snapshot, _ = trained(learner, REWARDS, *drawn(worker, learner, 0, 0))
        assert np.abs(snapshot.buffer - before).max() > 1e-4
        weights.append(snapshot.buffer)
    np.testing.assert_allclose(weights[0], weights[2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(weights[1], weights[2], rtol=0, atol=1e-6)


def test_good_samples_become_likelier_and_bad_ones_less(tiny_model: Path, worker: RolloutWorker) -> None:
    mine = policy(tiny_model)
    learner = learner_of(mine, learning_rate=1e-3)
    trajectories = drawn(worker, learner, 0, 0)
    rewards = np.array([1, 0, 1, 0, 1, 0, 1, 0], np.float32)
    trained(learner, rewards, *trajectories)
    batch = stack(trajectories, rewards, torch.device("cpu"))
    scorer = Scorer(mine, mine.schedule(DENOISING.steps, DENOISING.eta), DENOISING.guidance_scale)
    steps = torch.arange(DENOISING.steps)[scorer.schedule.stochastic]
    pairs = Pairs(torch.arange(8).repeat_interleave(len(steps)), steps.repeat(8))
    with torch.no_grad():
        after = scorer(batch, mine.embed(batch.prompts), pairs)
    gain = (after - batch.log_probs[pairs.samples, pairs.steps]).view(8, -1).mean(1)
    assert gain[batch.rewards == 1].mean() > 0
    assert gain[batch.rewards == 0].mean() < 0


def shifted(array: np.ndarray) -> np.ndarray:
    return (array + 1e-3).astype(array.dtype)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {"digest": "0" * 64}, "the weights never arrived"),
        (lambda t: {"version": PolicyVersion(7)}, r"drawn by version 7, which is not in use \(0\)"),
        (lambda t: {"sigmas": shifted(t.sigmas)}, "other noise levels"),
        (lambda t: {"timesteps": t.timesteps + 1}, "other noise levels"),
        (lambda t: {"log_probs": shifted(t.log_probs)}, "disagree on log-probs by 1.0.e-03"),
        (lambda t: {"latents": shifted(t.latents)}, "disagree on log-probs"),
        (lambda t: {"latents": t.latents * np.float32(np.nan)}, "disagree on log-probs by nan"),
        (lambda t: {"prompts": ("a fox",) * 4}, "disagree on log-probs"),
    ],
    ids=["digest", "version", "sigmas", "timesteps", "log-probs", "latents", "nan", "prompts"],
)
def test_a_trajectory_that_is_not_what_it_says_is_refused(
    tiny_model: Path, worker: RolloutWorker, change: Any, reason: str
) -> None:
    mine = policy(tiny_model)
    learner = learner_of(mine)
    honest, other = drawn(worker, learner, 0, 0)
    with pytest.raises(WeightsError, match=reason):
        trained(learner, REWARDS, honest, dataclasses.replace(other, **change(other)))
    assert mine.snapshot(PolicyVersion(0)).digest == learner.published(0).digest, "it trained on it"


def test_another_version_than_the_schedules_is_refused_even_if_it_was_published(
    tiny_model: Path, worker: RolloutWorker
) -> None:
    learner = learner_of(policy(tiny_model), lag=1)
    ahead = drawn(worker, learner, 1, 0)
    trained(learner, REWARDS, *drawn(worker, learner, 0, 0))
    with pytest.raises(WeightsError, match="drawn by version 0, the schedule asked for 1"):
        learner.update(REWARDS, (0, 1), *ahead)


def test_old_weights_under_a_new_name_are_found_by_the_log_probs(tiny_model: Path, worker: RolloutWorker) -> None:
    learner = learner_of(policy(tiny_model))
    _, snapshot, _ = trained(learner, REWARDS, *drawn(worker, learner, 0, 0))
    honest = drawn(worker, learner, 1, 1)
    learner_of_old = learner_of(policy(tiny_model))
    old = drawn(worker, learner_of_old, 1, 0)
    forged = [dataclasses.replace(t, version=snapshot.version, digest=snapshot.digest) for t in old]
    with pytest.raises(WeightsError, match="disagree on log-probs"):
        trained(learner, REWARDS, *forged)
    report, _, _ = trained(learner, REWARDS, *honest)
    assert report.version == 2


def test_stale_samples_are_held_against_the_weights_that_drew_them(tiny_model: Path, worker: RolloutWorker) -> None:
    mine = policy(tiny_model)
    learner = learner_of(mine, lag=1)
    ahead = drawn(worker, learner, 1, 0)
    trained(learner, REWARDS, *drawn(worker, learner, 0, 0))
    shifted_log_probs = [dataclasses.replace(t, log_probs=shifted(t.log_probs)) for t in ahead]
    with pytest.raises(WeightsError, match="disagree"):
        trained(learner, REWARDS, *shifted_log_probs)
    assert mine.snapshot(PolicyVersion(1)).digest == learner.published(1).digest, "the check left old weights behind"
    assert learner.published(1).digest != learner.published(0).digest
    report, _, _ = trained(learner, REWARDS, *ahead)
    assert report.staleness == 1
    assert report.log_prob_error <= 1e-6
    assert report.first_ratio_error > 1e-5, "the ratio is to the policy that drew, which is another one"
    with pytest.raises(KeyError):
        learner.published(0)


def test_a_restored_learner_goes_on_bit_for_bit(tiny_model: Path, worker: RolloutWorker) -> None:
    first = learner_of(policy(tiny_model), lag=1, prompt_min_count=4, optimizer_steps=2)
    ahead = drawn(worker, first, 1, 0)
    _, _, state = trained(first, REWARDS, *drawn(worker, first, 0, 0))
    second = learner_of(policy(tiny_model, lora_seed=99), lag=1, prompt_min_count=4, optimizer_steps=2)
    second.restore(state)
    for learner in (first, second):
        trained(learner, REWARDS[::-1].copy(), *ahead)
        report, _, _ = trained(learner, REWARDS, *drawn(worker, learner, 2, 1))
        assert report.grad_norm > 0
    assert first.published(3).digest == second.published(3).digest
    assert first.state() == second.state()


def test_a_state_of_another_adapter_is_refused(tiny_model: Path) -> None:
    state = learner_of(policy(tiny_model)).state()
    wider = PretrainedPolicy(ModelConfig(path=str(tiny_model), lora_rank=8), "cpu", 1)
    with pytest.raises(WeightsError):
        learner_of(wider).restore(state)


def test_samples_without_a_reward_take_no_part(tiny_model: Path, worker: RolloutWorker) -> None:
    learner = learner_of(policy(tiny_model), prompt_min_count=1)
    rewards = REWARDS.copy()
    rewards[[1, 6]] = np.nan
    report, snapshot, state = trained(learner, rewards, *drawn(worker, learner, 0, 0))
    assert report.num_samples == 6
    assert np.isfinite(report.loss)
    assert np.isfinite(snapshot.buffer).all()
    assert json.loads(state.facts)["prompts"] == {"a cat": [3, 5, 9], "a dog": [4, 1, 6]}


def test_targets_that_match_no_module_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="match no module of the UNet"):
        PretrainedPolicy(ModelConfig(path=str(tiny_model), lora_targets=("nothing",)), "cpu", 1)
