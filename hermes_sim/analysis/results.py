"""The results of a run: tables, the scenario they came from, and the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from hermes_sim.analysis import run_folder
from hermes_sim.analysis.frames import run_frames
from hermes_sim.analysis.objectives import Objective, meets_every_objective, objectives_of
from hermes_sim.analysis.plot import Plots
from hermes_sim.analysis.render import latency_rows, render
from hermes_sim.analysis.replications import headline_metrics
from hermes_sim.analysis.summary import summarize
from hermes_sim.analysis.trust import weakest_provenances
from hermes_sim.analysis.warm_up import WarmUp, run_window
from hermes_sim.core.errors import HermesError
from hermes_sim.core.tables import RunTables
from hermes_sim.core.whole_file import write_whole
from hermes_sim.scenario.dump import dump_scenario
from hermes_sim.scenario.load import read_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.window import MeasuredWindow

if TYPE_CHECKING:
    from hermes_sim.analysis.explanation import RunExplanation
    from hermes_sim.analysis.explanation_request import RequestExplanation


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """One run. Tables are DataFrames in base units (docs/glossary.md defines the words)."""

    requests: pd.DataFrame
    """One row per request, with ttft_s, tpot_s, e2e_s, slo_met, measured and provenance."""
    visits: pd.DataFrame
    """One row per request and stage."""
    engines: pd.DataFrame
    links: pd.DataFrame
    operators: pd.DataFrame
    """One representative step per engine and stage, operator by operator."""
    timeline: pd.DataFrame
    """One row per engine and interval of the run: what it did in it."""
    itl: pd.DataFrame
    """Histogram of the gaps between output tokens: from_s, to_s, num_gaps."""
    scenario: Scenario
    version: str
    duration_s: float
    """Simulated time from 0 to the last event."""
    num_events: int
    num_steps: int
    notes: tuple[str, ...] = ()
    wall_time_s: float | None = None
    """What the run took; no part of its outcome."""
    unloaded: pd.DataFrame | None = None
    """Latencies of requests alone on the empty cluster, where the SLO asks for multiples of them."""
    steps: pd.DataFrame | None = None
    """One row per step of a language model's engine, where recording was asked for."""
    decisions: pd.DataFrame | None = None
    """What was decided in each step, request by request, where recording was asked for."""
    kv_stores: pd.DataFrame | None = None
    """One row per instance of a KV store, where a stage of the workload asks one."""
    device_groups: pd.DataFrame | None = None
    """One row per device group of an engine that spans several, or computes in arrays."""
    link_timeline: pd.DataFrame | None = None
    """One row per link and interval of the run, where a link carried a transfer."""
    replications: pd.DataFrame | None = None
    """One row of headline metrics per seed; the tables are those of the first seed."""
    window: MeasuredWindow = field(init=False)
    """The measured part of the run."""
    warm_up: WarmUp | None = field(init=False)
    """What `workload.measure.warm_up: auto` has cut, where it is asked for."""

    def __post_init__(self) -> None:
        measure = self.scenario.workload.measure
        window, warm_up = run_window(self.requests, self.visits, self.duration_s, measure)
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "warm_up", warm_up)

    @classmethod
    def from_tables(
        cls,
        tables: RunTables,
        scenario: Scenario,
        *,
        version: str,
        unloaded: pd.DataFrame | None = None,
        wall_time_s: float | None = None,
    ) -> Results:
        """Results of a run that has just ended."""
        frames = run_frames(tables)
        requests = frames.pop("requests")
        met = meets_every_objective(requests, objectives_of(scenario.workload.promises()), unloaded)
        window, _ = run_window(requests, frames["visits"], tables.duration_s, scenario.workload.measure)
        provenance = weakest_provenances(frames["operators"], frames["visits"], len(requests))
        return cls(
            requests=requests.assign(slo_met=met, measured=window.measured, provenance=provenance),
            visits=frames["visits"],
            engines=frames["engines"],
            links=frames["links"],
            operators=frames["operators"],
            timeline=frames["timeline"],
            itl=frames["itl"],
            scenario=scenario,
            version=version,
            duration_s=tables.duration_s,
            num_events=tables.num_events,
            num_steps=tables.num_steps,
            notes=tables.notes,
            wall_time_s=wall_time_s,
            unloaded=unloaded,
            steps=frames.get("steps"),
            decisions=frames.get("decisions"),
            kv_stores=frames.get("kv_stores"),
            device_groups=frames.get("device_groups"),
            link_timeline=frames.get("link_timeline"),
        )

    @property
    def seed(self) -> int:
        return self.scenario.seed

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return objectives_of(self.scenario.workload.promises())

    @property
    def measured_requests(self) -> pd.DataFrame:
        """Requests left after warm-up and cool-down."""
        return self.requests[self.window.measured]

    @property
    def measured_visits(self) -> pd.DataFrame:
        """Visits of the measured requests."""
        if self.window.measured.all():
            return self.visits
        return self.visits[self.visits["request"].isin(self.measured_requests["request"])]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every metric, ready for JSON: base units, None for what has no value."""
        return summarize(self)

    @cached_property
    def scenario_yaml(self) -> str:
        """The resolved scenario as a file that runs it again."""
        return dump_scenario(self.scenario)

    @overload
    def explain(self, request: None = None) -> RunExplanation: ...

    @overload
    def explain(self, request: int) -> RequestExplanation: ...

    def explain(self, request: int | None = None) -> RunExplanation | RequestExplanation:
        """Where time goes and what limits it; of one request if its number is given. `hermes_sim.explain` measures
        what would help, too."""
        from hermes_sim.analysis.explanation import explain_run
        from hermes_sim.analysis.explanation_request import explain_request

        return explain_run(self) if request is None else explain_request(self, request)

    @property
    def plot(self) -> Plots:
        """Figures: `.cdf()`, `.timeline()`, `.engine_timeline()`, `.stages()`, `.engines()`, `.roofline()`."""
        return Plots(self)

    @property
    def headlines(self) -> dict[str, float]:
        """The seed and the metrics that replications are compared by."""
        return {"seed": self.seed, **headline_metrics(self.summary)}

    def with_replications(self, others: Sequence[Mapping[str, float]]) -> Results:
        """These results with the headlines of the same scenario under other seeds beside their own."""
        return replace(self, replications=pd.DataFrame([self.headlines, *others]))

    def save(self, folder: str | Path, *, report: bool = False, perfetto: bool = False) -> Path:
        """Writes the run to a folder, whole or not at all; a former run there is replaced.

        requests, visits, engines, links, operators, timeline and itl (steps and decisions where they were recorded) as
        Parquet, summary.json, scenario.yaml (resolved: `hermes-sim --scenario FOLDER` runs it again), run_info.json;
        report.html and trace.json.gz if asked for.
        Raises HermesError if the folder holds anything else or cannot be written.
        """
        folder = Path(folder)
        names = [*run_folder.TABLES, *(name for name in run_folder.OPTIONAL_TABLES if getattr(self, name) is not None)]
        run_folder.write_folder(
            folder,
            tables={name: getattr(self, name) for name in names},
            scenario_yaml=self.scenario_yaml,
            summary=self.summary,
            version=self.version,
            wall_time_s=self.wall_time_s,
            report=self.report_html() if report else None,
            trace=self.trace_gz() if perfetto else None,
        )
        return folder

    def report_html(self) -> str:
        """The run as one HTML page that needs nothing else: headlines, distributions, timeline, roofline, scenario."""
        from hermes_sim.analysis.report.page import report_html

        return report_html(self)

    def trace_gz(self, from_s: float | None = None, to_s: float | None = None) -> bytes:
        """The run as a trace for ui.perfetto.dev or chrome://tracing, a gzip file of JSON (analysis/perfetto.py).

        from_s, to_s: only what is under way between these moments of simulated time.
        """
        from hermes_sim.analysis.perfetto import trace_gz

        return trace_gz(self, from_s, to_s)

    def save_vllm_benchmark(self, path: str | Path) -> Path:
        """Writes the run as `vllm bench serve --save-result --save-detailed` would have (analysis/vllm_export.py).

        Gaps between the tokens of each request are in it where steps were recorded. Raises HermesError if the file
        cannot be written, or if no request has output tokens.
        """
        from hermes_sim.analysis.vllm_export import vllm_benchmark

        path = Path(path)
        content = json.dumps(vllm_benchmark(self), allow_nan=False, ensure_ascii=False)
        try:
            write_whole(path, content + "\n")
        except OSError as error:
            raise HermesError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Reads a saved run. Raises HermesError if the folder is not one."""
        folder = Path(folder)
        tables = run_folder.read_tables(folder)
        run = run_folder.read_json(folder / run_folder.SUMMARY_FILE)["run"]
        info = run_folder.read_json(folder / run_folder.RUN_INFO_FILE)
        return cls(
            **tables,
            scenario=read_scenario(folder),
            version=run["version"],
            duration_s=run["duration_s"],
            num_events=run["num_events"],
            num_steps=run["num_steps"],
            notes=tuple(run["notes"]),
            wall_time_s=info["wall_time_s"],
        )

    def __repr__(self) -> str:
        return render(self.summary)

    def _repr_html_(self) -> str:
        """Compact table for a notebook."""
        header, *rows = latency_rows(self.summary)
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        setting = self.summary["scenario"]
        caption = escape(f"{setting['cluster']} · {setting['workload']} · seed {self.seed}")
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
