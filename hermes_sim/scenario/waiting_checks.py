"""What engines do with the KV of requests that are away (kv_cache.while_waiting): what is not modelled is refused."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.batching.python_batching import PythonOptions
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.stages.kv_retrieval import KvRetrieval

Finding = tuple[KeyPath, str]


def check_waiting(scenario: Scenario) -> Iterator[Finding]:
    """Key paths of the cluster."""
    stages = [stage for pipeline in scenario.workload.pipelines for _, stage in pipeline.leaves()]
    retrieves = any(isinstance(stage, KvRetrieval) for stage in stages)
    for index, engine in enumerate(scenario.cluster.engines):
        way = engine.kv_cache.while_waiting
        if way == "lru":
            continue
        path = ("engines", index, "kv_cache", "while_waiting")
        if not {"prefill", "decode"} <= set(engine.serves):
            yield path, f"{way}: a request comes back to where its KV was left: serve prefill and decode here"
        if scenario.cluster.can_change:
            yield path, f"{way}: replicas that fail, drain or scale would lose what they hold; needs lru"
        if retrieves:
            yield path, f"{way}: the workload's kv_retrieval decides where KV is; needs lru"
        if isinstance(engine.batching, PythonOptions):
            yield path, f"{way}: a policy in Python does not see the KV of requests that are away; needs lru"
