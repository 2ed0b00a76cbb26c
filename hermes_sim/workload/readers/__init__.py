"""Recorded traces. One format a file; this table is the list."""

from __future__ import annotations

from hermes_sim.workload.readers.azure import Azure
from hermes_sim.workload.readers.burstgpt import BurstGpt
from hermes_sim.workload.readers.mooncake import Mooncake
from hermes_sim.workload.readers.servegen import ServeGen
from hermes_sim.workload.readers.sharegpt import ShareGpt
from hermes_sim.workload.readers.table import Table
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.readers.vllm_benchmark import VllmBenchmark

TRACE_FORMATS: dict[str, type[Trace]] = {
    "azure": Azure,
    "mooncake": Mooncake,
    "burstgpt": BurstGpt,
    "sharegpt": ShareGpt,
    "servegen": ServeGen,
    "vllm_benchmark": VllmBenchmark,
    "table": Table,
}

__all__ = ["TRACE_FORMATS", "Trace"]
