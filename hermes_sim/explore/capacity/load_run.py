"""What is looked at of a run to judge its load: a few columns, since most runs of a search are looked at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from hermes_sim.analysis.frames import data_frame, floats, with_latencies
from hermes_sim.analysis.objectives import meets_every_objective, objectives_of
from hermes_sim.core.tables import REQUESTS, RunTables
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.window import MeasuredWindow, measured_window

COLUMNS: Final = (
    "pipeline", "status", "service_class", "arrival_s", "first_token_s", "engine_first_token_s",
    "first_answer_token_s", "decode_s", "finish_s", "num_prompt_tokens", "num_output_tokens", "num_passes",
    "num_longest_sample_tokens",
)  # fmt: skip
"""Of the requests table: those that latencies and references are made of."""


@dataclass(frozen=True, eq=False, slots=True)
class LoadRun:
    """One run at one load."""

    scenario: Scenario
    requests: pd.DataFrame
    """COLUMNS, the latencies, slo_met."""
    visits: pd.DataFrame
    """arrival_s and start_s."""
    itl: pd.DataFrame
    window: MeasuredWindow

    @property
    def measured_requests(self) -> pd.DataFrame:
        return self.requests[self.window.measured]


def load_run(tables: RunTables, scenario: Scenario, unloaded: pd.DataFrame | None) -> LoadRun:
    """unloaded: latencies of requests alone, for objectives that are multiples of them."""
    requests = requests_of(tables)
    met = meets_every_objective(requests, objectives_of(scenario.workload.promises()), unloaded)
    window = measured_window(floats(requests, "arrival_s"), tables.duration_s, scenario.workload.measure)
    edges_s = tables.itl_edges_s
    return LoadRun(
        scenario,
        requests.assign(slo_met=met),
        pd.DataFrame({name: tables.visits[name] for name in ("arrival_s", "start_s")}),
        pd.DataFrame({"from_s": edges_s[:-1], "to_s": edges_s[1:], "num_gaps": tables.itl_counts}),
        window,
    )


def requests_of(tables: RunTables) -> pd.DataFrame:
    """COLUMNS of the requests table, with the latencies."""
    own = {name: tables.requests[name] for name in COLUMNS}
    return with_latencies(data_frame(own, {name: REQUESTS[name] for name in COLUMNS}))
