"""Why a run is as fast as it is: where its requests' time goes, what they waited for, and what limits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from hermes_sim.analysis.critical_path import HOLDS, PARTS, SERVICE, TIMED, path_to_the_end
from hermes_sim.analysis.findings import saturated
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.trust import engine_name

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.scenario.cluster import Engine

Resource = Literal[
    "compute", "memory", "network", "host", "kv", "batch", "link", "drafts", "stated", "front_end", "pause"
]

LEAST_FRAC = 0.005
"""Of all request time: what takes less is no limit worth a word."""
KV_RETRIEVAL = "kv_retrieval"


@dataclass(frozen=True, slots=True)
class TimeShare:
    """One part of the time on the requests' paths."""

    stage: str
    part: str
    """One of critical_path.PARTS."""
    mean_s: float
    """Per finished request."""
    frac: float
    """Of E2E."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource and the request time that is spent on it, or behind others that are."""

    owner: str
    """The engine, the store, or `links`."""
    resource: Resource
    frac: float
    """Of E2E."""
    waiting_frac: float
    """Of it, in line."""
    words: str


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine, its replicas together."""

    engine: str
    num_replicas: int
    utilization_frac: float
    limited_by: str
    limited_frac: float
    mean_batch: float
    max_batch: int | None
    peak_kv_used_frac: float | None
    wait_s: dict[str, float]
    """Mean seconds of a request in its line, by what held it: kv, batch, budget, step in flight (or busy workers)."""


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """Where time goes, and what limits. What would help is measured by explore/explain/sensitivity.py."""

    num_requests: int
    mean_e2e_s: float
    shares: tuple[TimeShare, ...]
    """Largest first; they add up to the mean E2E."""
    limits: tuple[Limit, ...]
    """Largest first."""
    engines: tuple[EngineState, ...]
    growth: str | None
    """Where the queues grew until the last arrival: what the finding says."""
    served_per_s: float
    offered_per_s: float

    @property
    def bottleneck(self) -> Limit | None:
        """What most request time is spent on, waiting for it included."""
        return self.limits[0] if self.limits else None

    def __str__(self) -> str:
        from hermes_sim.analysis.explanation_text import run_text

        return run_text(self)

    __repr__ = __str__


def explain_run(results: Results) -> RunExplanation:
    """Of the measured requests that finished."""
    path = measured_path(results)
    num = int(path["request"].nunique())
    total_s = float(path[[f"{part}_s" for part in PARTS]].to_numpy().sum())
    limits = _limits(results, path, total_s)
    return RunExplanation(
        num_requests=num,
        mean_e2e_s=total_s / num if num else 0.0,
        shares=tuple(_shares(path, num, total_s)),
        limits=tuple(sorted(limits, key=lambda one: -one.frac)),
        engines=tuple(_engines(results, path, num)),
        growth=None if (found := saturated(results.visits, results.requests)) is None else found.text,
        served_per_s=results.summary["throughput"]["requests_per_s"] or 0.0,
        offered_per_s=_offered_per_s(results),
    )


def measured_path(results: Results) -> pd.DataFrame:
    """critical_path.path_to_the_end of the measured requests."""
    early = results.scenario.cluster.kv_transfer.reserve != "after_prefill"
    return path_to_the_end(results.measured_requests, results.measured_visits, reserves_early=early)


def _offered_per_s(results: Results) -> float:
    arrival_s = np.sort(floats(results.requests, "arrival_s"))
    length_s = float(arrival_s[-1] - arrival_s[0]) if len(arrival_s) > 1 else 0.0
    return (len(arrival_s) - 1) / length_s if length_s > 0.0 else 0.0


def _shares(path: pd.DataFrame, num: int, total_s: float) -> list[TimeShare]:
    sums = path.groupby("stage", observed=True)[[f"{part}_s" for part in PARTS]].sum()
    found = [
        TimeShare(str(stage), part, float(row[f"{part}_s"]) / num, float(row[f"{part}_s"]) / total_s)
        for stage, row in sums.iterrows()
        for part in PARTS
        if row[f"{part}_s"] > 0.0
    ]
    return sorted(found, key=lambda one: -one.mean_s)


def _limits(results: Results, path: pd.DataFrame, total_s: float) -> Iterator[Limit]:
    """Time by who owns the resource that it was spent on."""
    account = _Account()
    owners = path["engine"].astype("str").map(engine_name)
    busy = _busy_shares(results)
    columns = [f"{part}_s" for part in PARTS]
    sums = (
        path[columns].assign(owner=owners, kind=path["kind"].astype("str")).groupby(["owner", "kind"], as_index=False)
    )
    for _, row in sums.sum().iterrows():
        spent_s = {part: float(row[f"{part}_s"]) for part in PARTS}
        account.add_visits(str(row["owner"]), str(row["kind"]), spent_s, busy.get(str(row["owner"]), {}))
    for (owner, resource), (spent, waited) in account.seconds.items():
        words = limit_words(results, owner, resource)
        yield Limit(owner, resource, spent / total_s, waited / total_s, words)


class _Account:
    """Owner and resource -> seconds, and those of them in line."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, Resource], tuple[float, float]] = {}

    def add(self, owner: str, resource: Resource, spent_s: float, *, waits: bool = False) -> None:
        if spent_s > 0.0:
            spent, waited = self.seconds.get((owner, resource), (0.0, 0.0))
            self.seconds[owner, resource] = (spent + spent_s, waited + spent_s if waits else waited)

    def add_visits(self, owner: str, kind: str, spent_s: Mapping[str, float], busy: Mapping[Resource, float]) -> None:
        """Visits of one kind at one engine. Who waits for the step in flight, or for busy workers, waits for what
        limits the engine's steps; who waits for prompts ahead, for what limits prompts there. busy: share of the
        engine's busy time that each resource limits."""
        stored = kind == KV_RETRIEVAL
        for resource in SERVICE:
            self.add(owner, "link" if stored and resource == "network" else resource, spent_s[resource])
        self.add(owner, "kv", spent_s["kv_wait"] + spent_s["preempted"], waits=True)
        self.add(owner, "batch", spent_s["batch_wait"], waits=True)
        own = _normed({resource: spent_s[resource] for resource in SERVICE})
        self._spread(owner, spent_s["budget_wait"], own if kind == "prefill" and own else busy)
        self._spread(owner, spent_s["queue"], {"kv": 1.0} if stored else {"stated": 1.0} if kind == TIMED else busy)
        self.add("links", "link", spent_s["transfer"])
        self.add(owner, "drafts", spent_s["draft_wait"])
        self.add(owner, "stated", spent_s["stated"])
        self.add(owner, "front_end", spent_s["front_end"])
        self.add(owner, "pause", spent_s["pause"])

    def _spread(self, owner: str, waited_s: float, shares: Mapping[Resource, float]) -> None:
        for resource, share in shares.items():
            self.add(owner, resource, waited_s * share, waits=True)


def _busy_shares(results: Results) -> dict[str, dict[Resource, float]]:
    """Engine -> share of its busy time that each resource limits."""
    engines = results.engines
    names = engines["engine"].astype("str").map(engine_name)
    sums = engines[[f"{resource}_s" for resource in SERVICE]].groupby(names).sum()
    return {
        str(name): _normed({resource: float(row[f"{resource}_s"]) for resource in SERVICE})
        for name, row in sums.iterrows()
    }


def _normed(sums: Mapping[Resource, float]) -> dict[Resource, float]:
    """Shares of their sum; empty where there is none."""
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total > 0.0 else {}


def limit_words(results: Results, owner: str, resource: Resource) -> str:
    """What is meant, in the words of the files: `memory bandwidth of llm (4 x a100_sxm_80gb)`."""
    if resource == "link":
        return _link_words(results, owner)
    rows = results.engines[results.engines["engine"].astype("str").map(engine_name) == owner]
    devices = f" ({rows['devices'].iloc[0]})" if len(rows) else ""
    engine = next((one for one in results.scenario.cluster.engines if one.name == owner), None)
    limit = None if engine is None else max_batch(engine)
    return {
        "compute": f"compute of {owner}{devices}",
        "memory": f"memory bandwidth of {owner}{devices}",
        "network": f"network inside the steps of {owner}{devices}",
        "host": f"host time of {owner}",
        "kv": f"KV memory of {owner}",
        "batch": f"batch limit of {owner}" + ("" if limit is None else f" (max_num_seqs {limit})"),
        "stated": f"stated service times of {owner}",
        "drafts": f"drafts for {owner} from other devices",
        "front_end": f"tokenising for {owner} and sending to clients",
        "pause": "pauses between stages",
    }[resource]


def _link_words(results: Results, owner: str) -> str:
    links = results.links
    if owner != "links":
        return f"transfers from the store {owner}"
    if not len(links):
        return "transfers between stages"
    busiest = links.iloc[int(floats(links, "utilization_frac").argmax())]
    return f"transfers over links (busiest: {busiest['link']}, {float(busiest['utilization_frac']):.0%})"


def max_batch(engine: Engine) -> int | None:
    """Sequences, or jobs, that may be in one batch."""
    batching = engine.batching
    limit = getattr(batching, "max_num_seqs", None) or getattr(batching, "max_batch_size", None)
    return None if limit is None else int(limit)


def _engines(results: Results, path: pd.DataFrame, num: int) -> Iterator[EngineState]:
    engines = results.engines
    names = engines["engine"].astype("str").map(engine_name)
    at = path["engine"].astype("str").map(engine_name)
    described = {one.name: one for one in results.scenario.cluster.engines}
    for name in dict.fromkeys(names):
        rows = engines[names == name]
        sums = {resource: float(rows[f"{resource}_s"].sum()) for resource in SERVICE}
        busy_s = sum(sums.values())
        resource = max(sums, key=lambda one: sums[one])
        waits = path[at == name]
        held = {part.removesuffix("_wait"): float(waits[f"{part}_s"].sum()) / num for part in HOLDS} if num else {}
        held["busy"] = float(waits["queue_s"].sum()) / num if num else 0.0
        engine = described.get(name)
        yield EngineState(
            engine=name,
            num_replicas=len(rows),
            utilization_frac=float(rows["utilization_frac"].mean()),
            limited_by=resource,
            limited_frac=sums[resource] / busy_s if busy_s > 0.0 else 0.0,
            mean_batch=float(rows["mean_batch"].mean()),
            max_batch=None if engine is None else max_batch(engine),
            peak_kv_used_frac=float(rows["peak_kv_used_frac"].max()) if (rows["num_blocks"] > 0).any() else None,
            wait_s=held,
        )
