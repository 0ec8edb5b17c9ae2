"""`python -m learner.main [PRESET] [--section.key VALUE ...]`: read the configuration, then assemble and run.

Nothing heavy is imported before the configuration is known to be right, so `--help` and typos answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from cluster.pool import ClusterError
from learner.command_line import Command, read_command
from rewards.flags import hush_libraries

USER_ERROR = 2
RUN_ERROR = 1
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the run is finished, 2 when something the user gave is wrong, 1 when the run failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        command = read_command(sys.argv[1:] if argv is None else argv)
        if command.check:
            from learner.plan import plan

            print(plan(command.config))
            return 0
        return _train(command)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the newest checkpoint", file=sys.stderr, flush=True)
        return INTERRUPTED
    except (ValueError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR


def _train(command: Command) -> int:
    folder = run_folder(command)
    if not command.resume and folder.exists():
        raise ValueError(f"run.name: {folder} exists; choose another --run.name, or go on with it by --resume")
    hush_libraries()

    from actors.policy import WeightsError
    from learner.events import CallLost, Stalled
    from learner.intake import RoundFailed
    from learner.wiring import train

    try:
        summary = train(command.config, folder, command.resume)
    except (WeightsError, CallLost, Stalled, RoundFailed) as error:
        print(f"run failed: {error}", file=sys.stderr, flush=True)
        return RUN_ERROR
    print(
        f"finished: mean reward {summary['eval_reward_first']:.4f} -> {summary['eval_reward_last']:.4f} "
        f"on the evaluation prompts, {summary['images']} images in {summary['seconds']:.0f} s\n"
        f"adapter {folder / 'adapter'}\nLoRA digest {summary['lora_digest']}"
    )
    return 0


def run_folder(command: Command) -> Path:
    """Where the run lies.

    A submitted job's own folder is thrown away at its end, so there a relative place is one in the home folder.
    """
    base = Path(command.config.run.dir).expanduser()
    if not base.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        base = Path.home() / base
    return base.resolve() / command.config.run.name


if __name__ == "__main__":
    sys.exit(main())
