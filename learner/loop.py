"""The main loop."""

from __future__ import annotations

from learner.checkpoint import Checkpoint, Checkpoints
from learner.client import LearnerClient
from learner.evaluation import Evaluation
from learner.intake import Intake, RoundFailed
from learner.reports import Reports


def run(
    intake: Intake,
    learner: LearnerClient,
    evaluation: Evaluation,
    checkpoints: Checkpoints,
    reports: Reports,
    rounds: int,
) -> None:
    """Train until `rounds` rounds are done, from wherever the learner stands."""

    def evaluate() -> None:
        if evaluation.due(learner.version) and not reports.is_evaluated(learner.version):
            with reports.phase("evaluation"):
                reports.evaluated(evaluation.run(learner.version, learner.snapshot))

    def checkpoint() -> None:
        with reports.phase("checkpoint"):
            queue = intake.tasks_in_flight()
            scales = intake.mix.record()
            checkpoints.save(Checkpoint(learner.state(), intake.ledger, queue, scales, reports.images, reports.seconds))

    evaluate()  # of a resumed run, what its end left out
    if learner.version == 0:
        checkpoint()
    intake.publish(learner.published)
    while learner.version < rounds:
        with reports.phase("waiting for samples"):
            try:
                scored = intake.next_round()
            except RoundFailed:
                checkpoint()
                raise
        with reports.phase("update"):
            report = learner.update(scored)
        intake.finish_round()
        intake.publish(learner.published)
        reports.round_trained(scored, report, intake.ledger)
        if checkpoints.due(learner.version):
            checkpoint()
        evaluate()
