"""Whether workers can fit on the nodes of a cluster at all: arithmetic on resources, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.pool import WorkerSpec

Resources = Mapping[str, float]

# Ray counts resources in ten-thousandths, so that ten shares of 0.1 are one whole.
_GRAIN = 10_000
_NOT_COUNTED = ("node:", "memory", "object_store_memory", "accelerator_type:")


def needs(spec: WorkerSpec) -> dict[str, float]:
    """What one worker takes of its node."""
    every = {"CPU": spec.num_cpus, "GPU": spec.num_gpus, **dict(spec.resources)}
    return {name: amount for name, amount in every.items() if amount > 0}


def shortage(specs: Sequence[WorkerSpec], nodes: Mapping[str, Resources]) -> str | None:
    """Why these workers can never all run on these nodes, in a sentence; None where nothing speaks against it.

    Counts what nodes have, not what is free now. Only certain refusals: each pool by itself, then all of
    them by their sums; what only an exact packing would show is left to Ray and the start deadline.
    """
    for spec in specs:
        if sum(_places(needs(spec), node) for node in nodes.values()) < spec.num:
            wanted = show(needs(spec))
            return f"{spec.pool} needs {wanted} each, {spec.num} of them; {_has(needs(spec), nodes)}"
    total: dict[str, float] = {}
    for spec in specs:
        for name, amount in needs(spec).items():
            total[name] = total.get(name, 0.0) + amount * spec.num
    short = {name: amount for name, amount in total.items() if _grains(amount) > _grains(_sum(name, nodes))}
    if not short:
        return None
    pools = ", ".join(f"{spec.num} {spec.pool} ({show(needs(spec))} each)" for spec in specs if needs(spec))
    return f"{pools} need {show(short)} together; {_has(short, nodes)}"


def show(resources: Resources) -> str:
    """Resources for a person: ``CPU 2, GPU 1``."""
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(resources.items())) or "nothing"


def countable(resources: Resources) -> dict[str, float]:
    """Those that a person counts: without bytes of memory and Ray's own marks of nodes."""
    return {name: amount for name, amount in resources.items() if not name.startswith(_NOT_COUNTED)}


def _has(wanted: Resources, nodes: Mapping[str, Resources]) -> str:
    sums = show({name: _sum(name, nodes) for name in wanted})
    each = "; ".join(f"{name}: {show(countable(node))}" for name, node in nodes.items())
    return f"the cluster has {sums} (nodes: {each})"


def _places(wanted: Resources, node: Resources) -> float:
    if not wanted:
        return float("inf")
    return min(_grains(node.get(name, 0.0)) // max(_grains(amount), 1) for name, amount in wanted.items())


def _sum(name: str, nodes: Mapping[str, Resources]) -> float:
    return sum(node.get(name, 0.0) for node in nodes.values())


def _grains(amount: float) -> int:
    return round(amount * _GRAIN)
