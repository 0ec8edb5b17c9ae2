"""From a configuration to a run: the only file that names concrete parts."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import DenoisingConfig, ModelConfig, SamplersConfig
from actors.model_path import resolve_model
from actors.pretrained import PretrainedPolicy
from actors.prompts import PromptSet, PromptSource, Stream, load_prompts, stream_seed
from actors.rollout import RolloutWorker
from cluster.pool import Cluster, Pool, WorkerSpec
from cluster.session import open_cluster
from learner.algorithms import DdpoIs
from learner.checkpoint import Checkpoint, Checkpoints
from learner.client import LearnerClient
from learner.config import LearnerConfig, RunConfig
from learner.evaluation import Evaluation, evaluation_batches
from learner.events import Events
from learner.intake import Intake
from learner.ledger import Ledger, State
from learner.loop import run
from learner.mixing import Mix, Term
from learner.panel import Panel
from learner.progress import Progress, progress
from learner.reports import Reports
from learner.reward_calls import RewardCalls
from learner.run_folder import RunFolder
from learner.staleness import FixedSchedule, FreshestSchedule, Schedule
from learner.update import Learner
from rewards.catalog import entry, found
from rewards.config import RewardConfig, RewardsConfig
from rewards.worker import build_worker as build_reward_worker

log = logging.getLogger(__name__)

PACKAGES = ("ddpo-ray", "ray", "torch", "diffusers", "transformers", "peft", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Pools:
    samplers: Pool
    rewards: tuple[Pool, ...]
    """In the order of `RewardsConfig.all`."""
    learner: Pool


def train(config: RunConfig, folder: Path, resume: bool) -> dict[str, Any]:
    """Run `config` in `folder`; returns the summary.

    Raises:
        ValueError: something the user gave is wrong; nothing has been written.
    """
    resolve_model(config.model.path)
    prompts = load_prompts(config.prompts.source, config.prompts.template, config.prompts.limit)
    checkpoints = Checkpoints(
        folder / "checkpoints", config.checkpoint.every, config.checkpoint.keep, config.run.rounds
    )
    resumed = checkpoints.newest() if resume else None
    with open_cluster(config.cluster) as cluster:
        judges = ", ".join(f"{reward.num} of {reward.called}" for reward in config.rewards.all)
        log.info("starting %d sampler(s), reward workers (%s), the learner", config.samplers.num, judges)
        pools = start_pools(cluster, config)
        cluster.ready(config.cluster.start_timeout_s)
        version = resumed.learner.version if resumed else None
        run_folder = RunFolder(folder, config, version)
        display = progress(config.run.rounds, version or 0)
        try:
            return _train(config, prompts, cluster, pools, run_folder, display, checkpoints, resumed)
        finally:
            display.close()
            run_folder.close()


def start_pools(cluster: Cluster, config: RunConfig) -> Pools:
    """Samplers, reward workers and the learner, starting side by side."""
    samplers, learner = config.samplers, config.learner
    lora_seed = stream_seed(config.run.seed, Stream.LORA)
    return Pools(
        samplers=cluster.start(
            WorkerSpec(
                "sampler",
                partial(build_sampler, config.model, config.denoising, samplers, lora_seed),
                samplers.num,
                samplers.num_cpus,
                samplers.num_gpus,
            )
        ),
        rewards=tuple(cluster.start(reward_workers(reward, config.rewards)) for reward in config.rewards.all),
        learner=cluster.start(
            WorkerSpec(
                "learner",
                partial(
                    build_learner,
                    config.model,
                    config.denoising,
                    learner,
                    lora_seed,
                    config.run.seed,
                    config.schedule.lag,
                ),
                1,
                learner.num_cpus,
                learner.num_gpus,
            )
        ),
    )


def reward_workers(reward: RewardConfig, rewards: RewardsConfig) -> WorkerSpec:
    """A pool for each reward; a lone one is just called `reward`."""
    return WorkerSpec(
        f"reward-{reward.pool}" if rewards.others else "reward",
        # Of the first reward too, the workers get their own section and not the others'.
        partial(build_reward_worker, RewardConfig(**reward.model_dump(include=set(RewardConfig.model_fields)))),
        reward.num,
        reward.num_cpus,
        reward.num_gpus,
        call_timeout_s=reward.timeout_s,
        runtime_env=reward.runtime_env or None,
        survives=True,
    )


def build_sampler(
    model: ModelConfig, denoising: DenoisingConfig, samplers: SamplersConfig, lora_seed: int
) -> RolloutWorker:
    return RolloutWorker(PretrainedPolicy(model, samplers.device, lora_seed), denoising, samplers.threads)


def build_learner(
    model: ModelConfig,
    denoising: DenoisingConfig,
    learner: LearnerConfig,
    lora_seed: int,
    run_seed: int,
    lag: int,
) -> Learner:
    policy = PretrainedPolicy(model, learner.device, lora_seed, with_decoder=False)
    algorithm = DdpoIs(learner.clip_range, learner.advantage_clip)
    return Learner(policy, algorithm, learner, denoising, run_seed, lag)


def _train(
    config: RunConfig,
    prompts: PromptSet,
    cluster: Cluster,
    pools: Pools,
    folder: RunFolder,
    display: Progress,
    checkpoints: Checkpoints,
    resumed: Checkpoint | None,
) -> dict[str, Any]:
    events = Events(cluster, config.cluster.stall_timeout_s)
    rewards = [
        RewardCalls(events, pool, reward, prompts.metadata_of)
        for pool, reward in zip(pools.rewards, config.rewards.all, strict=True)
    ]
    trained = [calls for calls, reward in zip(rewards, config.rewards.all, strict=True) if not reward.evaluate_only]
    mix = Mix(tuple(_term(reward) for reward in config.rewards.all))
    mix.resume(resumed.reward_scales if resumed else {})
    learner = LearnerClient(events, pools.learner, config.schedule.lag, resumed.learner if resumed else None)
    ledger = resumed.ledger if resumed else Ledger()
    ledger.observer = partial(_journal, folder)
    if resumed:
        folder.journal({"resumed_at_version": learner.version})
    batch_size = config.samplers.batch_size
    intake = Intake(
        events,
        pools.samplers,
        Panel(trained),
        mix,
        config.rewards.min_valid_fraction,
        PromptSource(prompts.prompts, config.prompts.images_per_prompt, config.run.seed),
        _schedule(config),
        batch_size,
        config.run.rounds,
        ledger,
        resumed.tasks_in_flight if resumed else None,
        learner.version,
    )
    batches = evaluation_batches(prompts.prompts, config.evaluation.samples, batch_size, config.run.seed)
    evaluation = Evaluation(
        events, pools.samplers, Panel(rewards), mix, batches, config.evaluation.every, config.run.rounds
    )
    reports = Reports(
        events,
        folder,
        display,
        rewards,
        prompts.metadata_of,
        config.log.images,
        config.log.every,
        resumed.images if resumed else 0,
        resumed.seconds if resumed else 0.0,
    )
    display.say(f"run {folder.path}" + (f", resumed at version {learner.version}" if resumed else ""))
    run(intake, learner, evaluation, checkpoints, reports, config.run.rounds)
    _save_adapter(folder.path / "adapter", learner.adapter_files())
    summary = {
        **_summary(config, learner, folder, reports, ledger, events),
        "rewards": {reward.label: reward.provenance for reward in rewards},
    }
    folder.summary(summary)
    return summary


def _term(reward: RewardConfig) -> Term:
    place = entry(reward.name).combine
    weight = 0.0 if reward.evaluate_only else reward.weight
    return Term(reward.called, weight, reward.scale, found(place) if place else None)


def _schedule(config: RunConfig) -> Schedule:
    kind = FixedSchedule if config.schedule.kind == "fixed" else FreshestSchedule
    return kind(config.schedule.lag, config.tasks_per_round)


def _journal(folder: RunFolder, task_id: int, state: State, samples: int, reason: str) -> None:
    event = {"task": task_id, "state": state.value, "samples": samples}
    folder.journal({**event, "reason": reason} if reason else event)


def _save_adapter(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _summary(
    config: RunConfig, learner: LearnerClient, folder: RunFolder, reports: Reports, ledger: Ledger, events: Events
) -> dict[str, Any]:
    evaluations = folder.evaluations()
    first, last = evaluations[min(evaluations)], evaluations[max(evaluations)]
    change = (last - first)[np.isfinite(last - first)]
    return {
        "version": learner.version,
        "lora_digest": events.get(learner.snapshot).digest,
        "eval_reward_first": float(np.nanmean(first)),
        "eval_reward_last": float(np.nanmean(last)),
        "eval_change_standard_errors": float(change.mean() / (change.std(ddof=1) / np.sqrt(len(change)) or np.inf)),
        "eval_samples": len(first),
        "images": reports.images,
        "seconds": round(reports.seconds, 3),
        "seconds_per_phase": {name: round(seconds, 3) for name, seconds in reports.phases.items()},
        "ledger": ledger.counts(),
        "dropped_by_reason": dict(ledger.dropped),
        "lag": config.schedule.lag,
        "seed": config.run.seed,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # this project itself, when run from its sources as a submitted job
