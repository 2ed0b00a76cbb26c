"""The highest load that configurations bear within their objectives, each with what it costs and what limits it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.analysis.human import as_written, percent
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.capacity.criterion import Criterion
from hermes_sim.explore.capacity.probe import BACKLOG, STOPPED, Row
from hermes_sim.explore.capacity.table import capacity_table, probe_table, require_sort, sorted_by
from hermes_sim.explore.capacity.task import CapacityTask, Hint, SeedCapacity, find_capacity
from hermes_sim.explore.grid import GridPoint
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.run_table import save_table
from hermes_sim.explore.sweep import last_words, load_sweep
from hermes_sim.explore.workers.workers import WAIT, Wait, Workers, workers_of
from hermes_sim.run import File, warm_up
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.explored import Base
from hermes_sim.scenario.files import FileOrMapping, files_read_once
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.slo import Slo, slo_of
from hermes_sim.scenario.sweep import SweepFile

CAPACITY_FILE: Final = "capacity.parquet"
PROBES_FILE: Final = "probes.parquet"
JOURNAL_FILE: Final = "probes.jsonl"
"""Probes of searches that have ended, while others go on."""
DEFAULT_REPLICATIONS: Final = 3
DEFAULT_TOLERANCE: Final = 0.02
MOST_TOLERANCE: Final = 0.5
NEEDS_BOTH: Final = "needs a cluster and a workload, or a sweep (hermes-sim list clusters, workloads, sweeps)"

Progress = Callable[[int, int], None]
"""(searches done, searches in all)."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One that is compared."""

    point: GridPoint
    scenario: Scenario | None
    problem: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class CapacityResults:
    """What a comparison has found."""

    table: pd.DataFrame
    """One row a configuration, the best first (explore/capacity/table.py)."""
    probes: pd.DataFrame
    """One row a run."""
    axes: tuple[str, ...] = ()
    criterion: Criterion = field(default_factory=Criterion)
    setting: Mapping[str, str] = field(default_factory=dict)
    """cluster, workload and objectives in words."""

    @property
    def best(self) -> pd.Series:
        """The first row."""
        return self.table.iloc[0]

    @property
    def data(self) -> dict[str, Any]:
        """Setting and table, ready for JSON; None for what has no value."""
        rows = self.table.to_dict("records")
        plain = [{str(name): _plain(value) for name, value in row.items()} for row in rows]
        return {"setting": dict(self.setting), "configurations": plain}

    def save(self, folder: str | Path) -> Path:
        """capacity.parquet and probes.parquet. Raises OSError."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_table(self.probes, folder / PROBES_FILE)
        save_table(self.table, folder / CAPACITY_FILE)
        (folder / JOURNAL_FILE).unlink(missing_ok=True)
        return folder

    def __repr__(self) -> str:
        from hermes_sim.explore.capacity.words import capacity_words

        return capacity_words(self)


def capacity(
    cluster: File | None = None,
    workload: File | None = None,
    *,
    sweep: SweepFile | FileOrMapping | None = None,
    axes: Sequence[Axis | Mapping[str, Any]] = (),
    overrides: Mapping[str, Any] | Sequence[str] = (),
    slo: Sequence[str] | Slo = (),
    attainment: float | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    replications: int = DEFAULT_REPLICATIONS,
    num_requests: int | None = None,
    seed: int | None = None,
    by: str = "capacity",
    early_stop: bool = True,
    jobs: int | None = None,
    workers: Workers | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> CapacityResults:
    """The highest load within the SLO: of a cluster and a workload, and of what axes make of them.

    sweep: configurations of a sweep file, whose base stands where cluster and workload are not given. axes: as in such
    a file. slo: objectives in words ('ttft p99 2 s') in place of the workload's. attainment: share of the requests that
    must keep all limits, in place of each limit's own percentile. tolerance: width of the bracket, as a share of the
    capacity. replications: seeds, each searched by itself. num_requests: of a run at first; by default the workload's,
    or as many as the percentiles want. by: the column that sorts (`capacity`, `per_usd`, `per_watt`, `per_device`,
    `usd_per_million_output_tokens`). early_stop: leave runs that can no longer pass. folder: where rows are kept on the
    way, and those of a former run there are used again.
    Raises ConfigError, TraceError.
    """
    if not 0.0 < tolerance <= MOST_TOLERANCE:
        raise HermesError(f"tolerance must be > 0 and at most {MOST_TOLERANCE:g}, got {tolerance:g}")
    if attainment is not None and not 0.0 < attainment < 1.0:
        raise HermesError(f"attainment must lie between 0 and 1, got {attainment:g}")
    if replications < 1:
        raise HermesError(f"replications must be at least 1, got {replications}")
    require_sort(by)
    criterion = Criterion(attainment, tolerance)
    asked = slo if isinstance(slo, Slo) else slo_of(slo)
    described = sweep if sweep is None or isinstance(sweep, SweepFile) else load_sweep(sweep)
    found = configurations(cluster, workload, sweep=described, axes=axes, overrides=overrides, seed=seed)
    chosen = [_promised(one, asked) for one in found]
    scenarios = [one.scenario for one in chosen if one.scenario is not None]
    if attainment is not None and not any(criterion.objectives(one) for one in scenarios):
        raise HermesError("attainment is a share of the requests that keep the SLO: there is none, name one (slo)")
    keep = _Kept(None if folder is None else Path(folder))
    template = CapacityTask(0, scenarios[0], criterion, num_requests, early_stop, known=keep.known)
    schedule = _Schedule(chosen, replications, template)
    if workers is not None:
        _search(schedule, workers, keep, progress)
    else:
        with workers_of(jobs) as own:
            _search(schedule, own, keep, progress)
    names = tuple(dict.fromkeys(name for one in chosen for name in one.point))
    table = sorted_by(capacity_table(names, chosen, schedule.found_by_configuration()), by, tolerance)
    results = CapacityResults(
        table,
        probe_table(names, [one.point for one in chosen], schedule.probes),
        names,
        criterion,
        setting_words(scenarios, criterion),
    )
    if folder is not None:
        results.save(folder)
    return results


def configurations(
    cluster: File | None,
    workload: File | None,
    *,
    sweep: SweepFile | None = None,
    axes: Sequence[Axis | Mapping[str, Any]] = (),
    overrides: Mapping[str, Any] | Sequence[str] = (),
    seed: int | None = None,
) -> list[Configuration]:
    """Every point of the axes. A point whose scenario is wrong has a problem instead; raises ConfigError if all are."""
    parsed = [Axis.model_validate(axis) if not isinstance(axis, Axis) else axis for axis in axes]
    if sweep is None and not parsed:
        if cluster is None or workload is None:
            raise HermesError(NEEDS_BOTH)
        return [Configuration({}, load_scenario(cluster, workload, overrides=overrides, seed=seed))]
    with files_read_once():
        plan = plan_sweep(_explored(cluster, workload, sweep, parsed), last=last_words(overrides))
    runs = {tuple(run.point.items()): run for run in reversed(plan.runs)}
    ordered = [runs[key] for key in dict.fromkeys(tuple(run.point.items()) for run in plan.runs)]
    return [Configuration(run.point, _seeded(run.scenario, seed), run.problem) for run in ordered]


def _explored(cluster: File | None, workload: File | None, sweep: SweepFile | None, axes: Sequence[Axis]) -> SweepFile:
    """The axes around the base; capacity looks at seeds by itself."""
    given = {"cluster": cluster, "workload": workload}
    for name in [name for name, file in given.items() if file is None]:
        named = [getattr(value, name) for axis in axes for value in axis.values]
        given[name] = next((file for file in named if file is not None), None)
    known = {name: file for name, file in given.items() if file is not None}
    if sweep is not None:
        base = sweep.base.model_copy(update=known)
        return sweep.model_copy(update={"base": base, "axes": (*sweep.axes, *axes), "replications": 1, "tiers": ()})
    if len(known) < len(given):
        raise HermesError(NEEDS_BOTH)
    # the content of a file may stand where its name is asked for: it is resolved alike
    base = Base(cluster="", workload="").model_copy(update=known)
    return SweepFile(name="capacity", base=base, axes=tuple(axes))


def _seeded(scenario: Scenario | None, seed: int | None) -> Scenario | None:
    return scenario if scenario is None or seed is None else scenario.model_copy(update={"seed": seed})


def _promised(one: Configuration, slo: Slo) -> Configuration:
    """With objectives in place of the workload's, and of those of its classes, if there are any."""
    if one.scenario is None or not slo.limits():
        return one
    workload = one.scenario.workload
    classes = tuple(each.model_copy(update={"slo": None}) for each in workload.classes)
    promised = workload.model_copy(update={"slo": slo, "classes": classes})
    return replace(one, scenario=one.scenario.model_copy(update={"workload": promised}))


def setting_words(scenarios: Sequence[Scenario], criterion: Criterion) -> dict[str, str]:
    """Names and objectives, for people; objectives of the first."""
    scenario = scenarios[0]
    limits = [
        f"{one.latency} {one.statistic} {f'{one.bound:g} x' if one.is_multiple else as_written(one.bound)}"
        + ("" if one.service_class is None else f" ({one.service_class})")
        for one in criterion.objectives(scenario)
    ]
    within = f" by {percent(criterion.attainment_frac)} of the requests" if criterion.attainment_frac else ""
    return {
        "cluster": ", ".join(dict.fromkeys(one.cluster.name for one in scenarios)),
        "workload": ", ".join(dict.fromkeys(one.workload.name for one in scenarios)),
        "slo": f"{', '.join(limits)}{within}" if limits else "none",
    }


# ----- who is searched when


class _Schedule:
    """The first seed of every configuration begins from the last one's capacity, its other seeds from its own."""

    def __init__(self, chosen: Sequence[Configuration], replications: int, template: CapacityTask) -> None:
        self._chosen = chosen
        self.template = template
        self._replications = replications
        self._first = [index for index, one in enumerate(chosen) if one.scenario is not None]
        self._ready: list[CapacityTask] = []
        self._drawn: list[CapacityTask] = []
        self._share: float | None = None
        self._load: float | None = None
        self.found: list[SeedCapacity] = []
        self.num_searches = len(self._first) * replications

    def tasks(self) -> Iterator[CapacityTask | Wait]:
        """Each search when there is a free worker for it."""
        while len(self._drawn) < self.num_searches:
            if self._ready:
                task = self._ready.pop(0)
            elif self._first:
                task = self._task(self._first.pop(0), 0, Hint(share=self._share, load=self._client_load()))
            else:
                yield WAIT
                continue
            self._drawn.append(task)
            yield task

    def told(self, found: SeedCapacity) -> None:
        """A search has ended: what begins after it may begin there."""
        self.found.append(found)
        if found.seed != self._seed(found.index):
            return
        if found.status == "failed":
            self.num_searches -= self._replications - 1
            return
        if found.low and found.served_per_s:
            self._share = found.low / found.served_per_s
        self._load = found.low or self._load
        hint = Hint(share=self._share, load=found.low or None)
        self._ready += [self._task(found.index, number, hint) for number in range(1, self._replications)]

    def _client_load(self) -> float | None:
        """Of clients the last capacity itself; rates go by their share."""
        first = self._chosen[0].scenario
        is_closed = first is not None and first.workload.traffic.closed_loop is not None
        return self._load if is_closed else None

    def _seed(self, index: int) -> int:
        scenario = self._chosen[index].scenario
        assert scenario is not None
        return scenario.seed

    def _task(self, index: int, number: int, hint: Hint) -> CapacityTask:
        scenario = self._chosen[index].scenario
        assert scenario is not None
        seeded = scenario.model_copy(update={"seed": scenario.seed + number})
        return replace(self.template, index=index, scenario=seeded, hint=hint)

    def found_by_configuration(self) -> list[list[SeedCapacity]]:
        """Seeds in order."""
        by_index: list[list[SeedCapacity]] = [[] for _ in self._chosen]
        for one in sorted(self.found, key=lambda one: one.seed):
            by_index[one.index].append(one)
        return by_index

    @property
    def probes(self) -> list[Row]:
        """All runs, configuration by configuration."""
        return [row for one in sorted(self.found, key=lambda one: (one.index, one.seed)) for row in one.probes]


def _search(schedule: _Schedule, workers: Workers, keep: _Kept, progress: Progress | None) -> None:
    warm_up(schedule.template.scenario)  # what is compiled once is not counted as the time of a run
    workers.prepare(schedule.template.scenario)
    for _, found in workers.outcomes(find_capacity, schedule.tasks()):
        schedule.told(found)
        keep.add(found)
        if progress is not None:
            progress(len(schedule.found), schedule.num_searches)


class _Kept:
    """Probes of a folder: those of a former run, and a journal of this one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.known: dict[str, Row] = {}
        if folder is not None:
            check_capacity_folder(folder)
            self.known = known_probes(folder)

    def add(self, found: SeedCapacity) -> None:
        """Behind the others, at once."""
        if self._folder is None:
            return
        with (self._folder / JOURNAL_FILE).open("a", encoding="utf-8") as journal:
            journal.write("".join(f"{json.dumps(row)}\n" for row in found.probes if row["outcome"] != BACKLOG))


def known_probes(folder: Path) -> dict[str, Row]:
    """By key; a line that was being written when the process died is left out."""
    rows: list[Row] = []
    if (folder / PROBES_FILE).is_file():
        saved = pd.read_parquet(folder / PROBES_FILE)
        rows += [{str(name): value for name, value in row.items()} for row in saved.to_dict("records")]
    if (folder / JOURNAL_FILE).is_file():
        for line in (folder / JOURNAL_FILE).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    by_key: dict[str, Row] = {}
    for row in rows:
        former = by_key.get(row["key"])
        if row["key"] and (former is None or former["outcome"] == STOPPED):
            by_key[row["key"]] = row
    return by_key


def check_capacity_folder(folder: Path) -> None:
    """Refuses, before a run, a folder of something else or one that cannot be written to. Raises HermesError."""
    ours = (CAPACITY_FILE, PROBES_FILE, JOURNAL_FILE)
    if folder.exists() and not folder.is_dir():
        raise HermesError(f"--out {folder}: exists and is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in ours):
        raise HermesError(f"--out {folder}: holds something else than capacities; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HermesError(f"--out {folder}: {error.strerror}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
