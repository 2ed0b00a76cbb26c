"""Small systems of servers, described as a user would: a cluster and a workload."""

from __future__ import annotations

from typing import Any

from hermes_sim import Results, simulate


def simulate_servers(
    *,
    service_time: dict[str, Any],
    traffic: dict[str, Any],
    num_requests: int,
    seed: int,
    num_workers: int = 1,
    replicas: int = 1,
    num_stages: int = 1,
    routing: str = "round_robin",
    exact_steps: bool = False,
) -> Results:
    """Requests that pass `num_stages` equal stages in a row, all on one group of servers of `num_workers` each."""
    stages = []
    for number in range(num_stages):
        after = [f"work{number - 1}"] if number else []
        stages.append({"name": f"work{number}", "kind": "timed", "after": after, "service_time": service_time})
    engine = {
        "name": "server",
        "serves": ["timed"],
        "replicas": replicas,
        "placement": {"cpu": {"cores": num_workers}},
        "batching": {"kind": "dynamic", "max_batch_size": 1, "num_workers": num_workers},
    }
    return simulate(
        cluster={
            "name": "servers",
            "nodes": [{"name": "host", "devices": {"cpu": {"profile": "epyc_7742", "count": 2}}}],
            "engines": [engine],
            "routing": {"kind": routing},
        },
        workload={
            "name": "work",
            "traffic": {
                **traffic,
                "num_requests": num_requests,
                "lengths": {"kind": "fixed", "num_prompt_tokens": 1, "num_output_tokens": 0},
            },
            "pipelines": [{"name": "work", "stages": stages}],
        },
        seed=seed,
        exact_steps=exact_steps,
    )
