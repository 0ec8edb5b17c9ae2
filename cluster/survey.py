"""What Ray says about its nodes, for decisions and for people; no question to it can hang the asker."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from cluster.placement import countable, show

# The control store answers in milliseconds or not at all.
_ANSWER_S = 5.0
# The monitor of a cluster that has just been started reports every five seconds.
_FIRST_REPORT_S = 10.0


def alive_nodes() -> dict[str, dict[str, float]]:
    """Resources by node; several nodes may share an address."""
    return {
        f"{node['NodeManagerHostname']} {node['NodeManagerAddress']} {node['NodeID'][:8]}": node["Resources"]
        for node in ray.nodes()
        if node["Alive"]
    }


def may_grow() -> bool:
    """Whether an autoscaler could bring nodes: yes unless Ray says that nodes are only watched.

    Where there is none, Ray's monitor invents a node type ``node_ID`` for each node. A cluster whose
    monitor says nothing, as with other autoscalers, is taken to be able to grow.
    """
    deadline = time.monotonic() + _FIRST_REPORT_S
    while not (types := _monitor_report().get("autoscaler_report", {}).get("active_nodes")):
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.2)
    return not set(types) <= {f"node_{node['NodeID']}" for node in ray.nodes()}


def survey() -> str:
    """Nodes, resources and what waits for some, in a few lines for a person, within a few seconds."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_survey()), daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    return answers[0] if answers else f"Ray's control store has not answered within {_ANSWER_S:g} s"


def _survey() -> str:
    try:
        lines = [f"node {name}: {show(countable(resources))}" for name, resources in alive_nodes().items()]
        dead = sum(not node["Alive"] for node in ray.nodes())
        lines.append(f"all nodes: {show(countable(ray.cluster_resources()))}; dead nodes: {dead}")
        lines.append(f"free: {show(countable(ray.available_resources()))}")
        demands = _monitor_report().get("load_metrics_report", {}).get("resource_demand", [])
        lines += [f"waiting for resources: {show(bundle)}, {count} times" for bundle, count in demands]
    except RayError as error:
        return f"Ray's control store does not answer: {error}"
    return "\n".join(lines)


def _monitor_report() -> dict[str, Any]:
    report = _internal_kv_get("__autoscaling_status")
    return json.loads(report) if report else {}
