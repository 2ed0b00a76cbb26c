"""Why one request took as long as it did: its way from arrival to its last token, and the median request beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from hermes_sim.analysis.critical_path import HOLDS, PARTS, SERVICE, path_to_the_end
from hermes_sim.analysis.explanation import max_batch
from hermes_sim.analysis.explanation_links import SharedLink, slowest_link
from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.trust import engine_name
from hermes_sim.core.errors import HermesError

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

What = Literal["pause", "front end", "transfer", "wait", "run"]

LEAST_S = 1e-12
"""Shorter segments are rounding."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a visit found when it came to its engine."""

    num_ahead: int
    """Visits in line."""
    num_tokens_ahead: int
    """Prompt tokens of those."""
    num_running: int
    max_batch: int | None
    kv_used_frac: float | None
    """Of the interval of the timeline in which it came."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a request's time; from the moment it arrived, one begins where the last one ends."""

    start_s: float
    """Of simulated time."""
    end_s: float
    what: What
    stage: str
    round: int
    engine: str
    parts: dict[str, float]
    """Seconds by part (critical_path.PARTS); they add up to the segment. When in it each was is not known."""
    line: Line | None = None
    """Of a wait."""
    link: SharedLink | None = None
    """Of a transfer: the slowest link on its way."""

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Difference:
    """Time in one part of one stage, beside that of the median request."""

    stage: str
    part: str
    own_s: float
    median_s: float

    @property
    def more_s(self) -> float:
        return self.own_s - self.median_s


@dataclass(frozen=True, slots=True)
class RequestExplanation:
    """One request."""

    request: int
    arrival_s: float
    ttft_s: float | None
    e2e_s: float
    facts: dict[str, float]
    """Prompt tokens, cached ones, output tokens, preemptions ..., and `num_in_line`: visits in its engines' lines when
    it came to them, the most of all."""
    segments: tuple[Segment, ...]
    """In order; their lengths add up to e2e_s."""
    median_request: int
    """Of all measured requests that finished, the one with the median E2E."""
    median_e2e_s: float
    median_facts: dict[str, float]
    differences: tuple[Difference, ...]
    """Largest first, longer or shorter; they add up to e2e_s - median_e2e_s."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by part; they add up to e2e_s."""
        return {part: sum(one.parts.get(part, 0.0) for one in self.segments) for part in PARTS}

    def __str__(self) -> str:
        from hermes_sim.analysis.explanation_text import request_text

        return request_text(self)

    __repr__ = __str__


FACTS: Final = (
    "num_prompt_tokens", "num_cached_tokens", "num_reloaded_tokens", "num_output_tokens", "num_passes",
    "num_preemptions", "num_retries",
)  # fmt: skip


def explain_request(results: Results, request: int) -> RequestExplanation:
    """Raises HermesError where there is no such request, or where it did not finish."""
    row = _finished_row(results, request)
    segments = tuple(_segments(results, row))
    median = _median_row(results)
    median_segments = segments if int(median["request"]) == request else tuple(_segments(results, median))
    own, usual = _by_stage(segments), _by_stage(median_segments)
    differences = [
        Difference(stage, part, own.get((stage, part), 0.0), usual.get((stage, part), 0.0))
        for stage, part in dict.fromkeys((*own, *usual))
    ]
    return RequestExplanation(
        request=request,
        arrival_s=float(row["arrival_s"]),
        ttft_s=None if pd.isna(row["ttft_s"]) else float(row["ttft_s"]),
        e2e_s=float(row["e2e_s"]),
        facts=_facts(row, segments),
        segments=segments,
        median_request=int(median["request"]),
        median_e2e_s=float(median["e2e_s"]),
        median_facts=_facts(median, median_segments),
        differences=tuple(sorted(differences, key=lambda one: -abs(one.more_s))),
    )


def chosen_request(results: Results, request: str) -> int:
    """Number of a request: as written, or that of the `slowest` or the `median` one of those measured, by E2E.

    Raises HermesError for anything else.
    """
    if request.isdecimal():
        return int(request)
    finished = results.measured_requests[is_finished(results.measured_requests)]
    if request not in ("slowest", "median") or finished.empty:
        what = "no measured request finished" if finished.empty else "a number, or slowest, or median"
        raise HermesError(f"request '{request}': {what}")
    if request == "median":
        return int(_median_row(results)["request"])
    return int(finished["request"].to_numpy()[floats(finished, "e2e_s").argmax()])


def _finished_row(results: Results, request: int) -> pd.Series[Any]:
    rows = results.requests[results.requests["request"] == request]
    if rows.empty:
        raise HermesError(f"there is no request {request}: the run has {len(results.requests):,}, counted from 0")
    row = rows.iloc[0]
    if row["status"] != "finished":
        reason = f" ({row['reason']})" if row["reason"] else ""
        raise HermesError(f"request {request} has no end to explain: it is {row['status']}{reason}")
    return row


def _median_row(results: Results) -> pd.Series[Any]:
    requests = results.measured_requests
    finished = requests[is_finished(requests)]
    if finished.empty:
        finished = results.requests[is_finished(results.requests)]
    order = np.argsort(floats(finished, "e2e_s"), kind="stable")
    return finished.iloc[int(order[(len(order) - 1) // 2])]


def _by_stage(segments: tuple[Segment, ...]) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], float] = {}
    for segment in segments:
        for part, seconds in segment.parts.items():
            sums[segment.stage, part] = sums.get((segment.stage, part), 0.0) + seconds
    return sums


def _facts(row: pd.Series[Any], segments: tuple[Segment, ...]) -> dict[str, float]:
    facts = {name: float(row[name]) for name in FACTS if name in row}
    return {**facts, "num_in_line": float(max((one.line.num_ahead for one in segments if one.line), default=0))}


def _segments(results: Results, request: pd.Series[Any]) -> Iterator[Segment]:
    """The path of one request, every visit cut where something else began: setting out, arriving, starting, ending."""
    number, now_s, end_s = int(request["request"]), float(request["arrival_s"]), float(request["finish_s"])
    rows = results.requests[results.requests["request"] == number]
    early = results.scenario.cluster.kv_transfer.reserve != "after_prefill"
    path = path_to_the_end(rows, results.visits[results.visits["request"] == number], reserves_early=early)
    stage, round_, engine = "", 0, ""
    for _, row in path.iterrows():
        before = engine
        stage, round_, engine = str(row["stage"]), int(row["round"]), str(row["engine"])
        for what, until_s, known in _cuts(row):
            if until_s - now_s > LEAST_S:
                parts = _filled(what, known, until_s - now_s)
                line = _line(results, row) if what == "wait" else None
                link = slowest_link(results, before, engine) if what == "transfer" else None
                yield Segment(now_s, until_s, what, stage, round_, engine, parts, line, link)
                now_s = until_s
    if end_s - now_s > LEAST_S:
        last: What = "front end" if stage else "pause"
        yield Segment(now_s, end_s, last, stage, round_, engine, {REST[last]: end_s - now_s})


def _cuts(row: pd.Series[Any]) -> Iterator[tuple[What, float, dict[str, float]]]:
    """(what, until, named parts) of one visit of the path."""
    arrival_s, transfer_s = float(row["arrival_s"]), float(row["transfer_s"])
    start_s, finish_s = float(row["start_s"]), float(row["finish_s"])
    held = {part: float(row[f"{part}_s"]) for part in HOLDS}
    in_line_s = start_s - arrival_s
    before_s = max(held["kv_wait"] - in_line_s, 0.0)  # for room in the engine that it is sent to
    yield "pause", float(row["set_out_s"]), {"kv_wait": before_s}
    yield "front end", arrival_s - transfer_s, {}
    yield "transfer", arrival_s, {}
    yield "wait", start_s, {**held, "kv_wait": held["kv_wait"] - before_s}
    yield "run", finish_s, {part: float(row[f"{part}_s"]) for part in ("preempted", "draft_wait", "stated", *SERVICE)}


REST: Final[Mapping[What, str]] = {
    "pause": "pause", "front end": "front_end", "transfer": "transfer", "wait": "queue", "run": "queue",
}  # fmt: skip
"""What a segment's time is where no part is known by name."""


def _filled(what: What, parts: Mapping[str, float], length_s: float) -> dict[str, float]:
    """The parts that are known, and what they leave of the segment."""
    known = {part: seconds for part, seconds in parts.items() if seconds > LEAST_S}
    left_s = length_s - sum(known.values())
    return {**known, REST[what]: left_s} if left_s > LEAST_S else known


def _line(results: Results, row: pd.Series[Any]) -> Line:
    """Who was at the engine when the visit came."""
    visits = results.visits[results.visits["engine"] == row["engine"]]
    others = visits[visits["request"] != row["request"]]
    now_s = float(row["arrival_s"])
    arrival_s, start_s, finish_s = (floats(others, f"{name}_s") for name in ("arrival", "start", "finish"))
    ahead = (arrival_s <= now_s) & ((start_s > now_s) | np.isnan(start_s))
    running = (start_s <= now_s) & ((finish_s > now_s) | np.isnan(finish_s))
    prompts = results.requests.set_index("request")["num_prompt_tokens"]
    waiting = others[ahead & (others["kind"] == "prefill").to_numpy()]
    engine = next((one for one in results.scenario.cluster.engines if one.name == engine_name(row["engine"])), None)
    return Line(
        num_ahead=int(ahead.sum()),
        num_tokens_ahead=int(prompts.reindex(waiting["request"]).sum()),
        num_running=int(running.sum()),
        max_batch=None if engine is None else max_batch(engine),
        kv_used_frac=_kv_used(results, str(row["engine"]), now_s),
    )


def _kv_used(results: Results, engine: str, time_s: float) -> float | None:
    blocks = results.engines[results.engines["engine"] == engine]
    if blocks.empty or not int(blocks["num_blocks"].iloc[0]):
        return None
    rows = results.timeline[(results.timeline["engine"] == engine) & (results.timeline["start_s"] <= time_s)]
    return float(rows["mean_kv_used_frac"].iloc[-1]) if len(rows) else None
