"""Fill the compile cache once, before test workers start: `python -m tests.warm_up`."""

from __future__ import annotations

from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s


def main() -> None:
    """Run what touches every compiled function: job engines, contention, routing, reservations, both drivers."""
    shared = s.cluster(
        s.workers(["embed"], name="embedder"),
        s.workers(["retrieve"], name="retriever", num_workers=2),
        s.llm("prefiller", serves=["prefill"], replicas=2),
        s.llm("decoder", serves=["decode"]),
        num_cpus=1,
    )
    few = s.workload(*s.RAG, traffic=s.traffic(num_requests=4))
    for exact_steps in (False, True):
        simulate_scenario(load_scenario(shared, few, exact_steps=exact_steps))


if __name__ == "__main__":
    main()
