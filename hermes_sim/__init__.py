"""hermes-sim: a discrete-event simulator of heterogeneous, multi-stage LLM inference hardware.

    from hermes_sim import simulate

    results = simulate(cluster="a100x8.yaml", workload="rag.yaml")
    results.requests          # one row per request, a DataFrame
    results.summary["latency"]["ttft"]["p99_s"]

Names are loaded when they are first used, so that the import costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_sim.analysis.comparison import Comparison, compare
    from hermes_sim.analysis.results import Results
    from hermes_sim.batching.python_batching import Decisions, PythonBatching
    from hermes_sim.calibration.calibrate import calibrate
    from hermes_sim.core.errors import ConfigError, HermesError, SimulationError, TraceError
    from hermes_sim.explore.capacity.capacity import CapacityResults, capacity
    from hermes_sim.explore.explain.explain import explain
    from hermes_sim.explore.search.results import SearchResults
    from hermes_sim.explore.search.search import search
    from hermes_sim.explore.sweep import sweep
    from hermes_sim.explore.sweep_results import SweepResults
    from hermes_sim.plugins import load_plugin, register_batching, register_routing
    from hermes_sim.routing.python_routing import PythonRouting
    from hermes_sim.run import run_scenario, simulate
    from hermes_sim.scenario.load import load_scenario
    from hermes_sim.scenario.own_devices import device
    from hermes_sim.scenario.scenario import Scenario
    from hermes_sim.validation.kernel_times import kernel_times

__version__ = "0.1.0"

_HOMES = {
    "CapacityResults": "hermes_sim.explore.capacity.capacity",
    "Comparison": "hermes_sim.analysis.comparison",
    "ConfigError": "hermes_sim.core.errors",
    "Decisions": "hermes_sim.batching.python_batching",
    "HermesError": "hermes_sim.core.errors",
    "PythonBatching": "hermes_sim.batching.python_batching",
    "PythonRouting": "hermes_sim.routing.python_routing",
    "Results": "hermes_sim.analysis.results",
    "Scenario": "hermes_sim.scenario.scenario",
    "SearchResults": "hermes_sim.explore.search.results",
    "SimulationError": "hermes_sim.core.errors",
    "SweepResults": "hermes_sim.explore.sweep_results",
    "TraceError": "hermes_sim.core.errors",
    "calibrate": "hermes_sim.calibration.calibrate",
    "capacity": "hermes_sim.explore.capacity.capacity",
    "compare": "hermes_sim.analysis.comparison",
    "device": "hermes_sim.scenario.own_devices",
    "explain": "hermes_sim.explore.explain.explain",
    "kernel_times": "hermes_sim.validation.kernel_times",
    "load_plugin": "hermes_sim.plugins",
    "load_scenario": "hermes_sim.scenario.load",
    "register_batching": "hermes_sim.plugins",
    "register_routing": "hermes_sim.plugins",
    "run_scenario": "hermes_sim.run",
    "search": "hermes_sim.explore.search.search",
    "simulate": "hermes_sim.run",
    "sweep": "hermes_sim.explore.sweep",
}

__all__ = [
    "CapacityResults",
    "Comparison",
    "ConfigError",
    "Decisions",
    "HermesError",
    "PythonBatching",
    "PythonRouting",
    "Results",
    "Scenario",
    "SearchResults",
    "SimulationError",
    "SweepResults",
    "TraceError",
    "__version__",
    "calibrate",
    "capacity",
    "compare",
    "device",
    "explain",
    "kernel_times",
    "load_plugin",
    "load_scenario",
    "register_batching",
    "register_routing",
    "run_scenario",
    "search",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hermes_sim' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
