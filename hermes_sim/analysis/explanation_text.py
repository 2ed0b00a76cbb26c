"""Explanations as a person reads them: at most 80 columns, lanes drawn in text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from hermes_sim.analysis.human import count, digits, duration, percent

if TYPE_CHECKING:
    from hermes_sim.analysis.explanation import EngineState, RunExplanation
    from hermes_sim.analysis.explanation_request import Line, RequestExplanation

WIDTH: Final = 80
LANE: Final = 25
MOST_SEGMENTS: Final = 16
MOST_WAITS: Final = 4
MOST_SHARES: Final = 8
MOST_DIFFERENCES: Final = 5
MOST_ENGINES: Final = 8
LEAST_FRAC: Final = 0.005
LEAST_S: Final = 1e-9
"""Rounding leaves shorter waits than this behind."""
PART_WORDS: Final = {
    "pause": "between stages",
    "front_end": "tokenising and sending",
    "transfer": "transfer",
    "kv_wait": "KV memory full",
    "batch_wait": "batch full",
    "budget_wait": "prompts ahead",
    "queue": "engine busy",
    "preempted": "preempted",
    "draft_wait": "drafts under way",
    "stated": "its stated time",
    "compute": "compute-bound",
    "memory": "memory-bound",
    "network": "network",
    "host": "host",
}


FACT_WORDS: Final = {
    "num_prompt_tokens": "prompt tokens",
    "num_cached_tokens": "cached tokens",
    "num_reloaded_tokens": "tokens from KV stores",
    "num_output_tokens": "output tokens",
    "num_passes": "passes",
    "num_preemptions": "preemptions",
    "num_retries": "retries",
    "num_in_line": "most in line before it",
}


def request_text(found: RequestExplanation) -> str:
    """Headline, the lane, what it waited for, and what the median request did otherwise."""
    facts = found.facts
    ttft = "" if found.ttft_s is None else f" · TTFT {duration(found.ttft_s)}"
    lines = [
        f"request {found.request}: E2E {duration(found.e2e_s)}{ttft} · arrived at {duration(found.arrival_s)}",
        f"  {count(facts['num_prompt_tokens'])} prompt tokens, {count(facts['num_cached_tokens'])} cached, "
        f"{count(facts['num_output_tokens'])} output tokens",
        "",
        *_lanes(found),
        "",
        *_wrapped("its time", _named(found.parts, found.e2e_s)),
        *_waits(found),
        "",
        *_comparison(found),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _lanes(found: RequestExplanation) -> Iterator[str]:
    """One row a segment, its place in the request's time drawn to scale."""
    shown = sorted(found.segments, key=lambda one: -one.length_s)[:MOST_SEGMENTS]
    rest = [one for one in found.segments if one not in shown]
    axis = f"0 {duration(found.e2e_s):>{LANE - 2}}"
    yield f"{'stage':<14} {'':<9} {'at':>10} {'took':>10} {'share':>6}  {axis}"
    for one in found.segments:
        if one in shown:
            at_s = one.start_s - found.arrival_s
            begin = int(LANE * at_s / found.e2e_s)
            end = max(round(LANE * (at_s + one.length_s) / found.e2e_s), begin + 1)
            bar = " " * begin + ("░" if one.what != "run" else "█") * (end - begin)
            name = _cut(one.stage + (f" {one.round}" if one.round else ""), 14)
            yield (
                f"{name:<14} {one.what:<9} {duration(at_s):>10} {duration(one.length_s):>10} "
                f"{percent(one.length_s / found.e2e_s):>6}  {bar[:LANE]}"
            )
    if rest:
        rest_s = sum(one.length_s for one in rest)
        yield f"{f'{len(rest)} shorter ones':<35} {duration(rest_s):>10} {percent(rest_s / found.e2e_s):>6}"


def _waits(found: RequestExplanation) -> Iterator[str]:
    """What each of the longer waits and transfers was for."""
    told = [one for one in found.segments if one.line is not None or one.link is not None]
    longest = sorted(told, key=lambda one: -one.length_s)[:MOST_WAITS]
    for one in (one for one in told if one in longest):
        if one.line is not None:
            words = f"{_line_words(one.line, one.engine)}: {_named(one.parts)}"
            yield from _wrapped("waits", f"{one.stage} {words}")
        elif one.link is not None:
            rate = f"{one.link.bandwidth_bytes_per_s / 1e9:.3g} GB/s"
            words = f"over {one.link.name} ({one.link.profile}, {rate}, {percent(one.link.utilization_frac)} busy)"
            yield from _wrapped("moves", f"{one.stage} {words}: {duration(one.length_s)}")


def _line_words(line: Line, engine: str) -> str:
    limit = "" if line.max_batch is None else f" of {line.max_batch}"
    tokens = f" ({count(line.num_tokens_ahead)} prompt tokens)" if line.num_tokens_ahead else ""
    used = "" if line.kv_used_frac is None else f", KV used {percent(line.kv_used_frac)}"
    return f"for {engine} behind {line.num_ahead} in line{tokens}, {line.num_running}{limit} running{used}"


def _comparison(found: RequestExplanation) -> Iterator[str]:
    """What is different about it."""
    if found.request == found.median_request:
        yield "It is the median request of the run."
        return
    more_s = found.e2e_s - found.median_e2e_s
    word = "longer" if more_s >= 0 else "shorter"
    usual = f"request {found.median_request} with {duration(found.median_e2e_s)}"
    yield f"{duration(abs(more_s))} {word} than the median, {usual}"
    for one in found.differences[:MOST_DIFFERENCES]:
        if abs(one.more_s) >= LEAST_FRAC * abs(more_s):
            change = f"{'+' if one.more_s >= 0 else '-'}{duration(abs(one.more_s))}"
            name = _cut(f"{one.stage}, {PART_WORDS[one.part]}", 34)
            yield f"  {change:<11} {name:<34} {duration(one.own_s)}, not {duration(one.median_s)}"
    for name, words in FACT_WORDS.items():
        own, median = found.facts.get(name, 0.0), found.median_facts.get(name, 0.0)
        if own != median:
            yield f"  {words}: {count(own)}, not {count(median)}"


def run_text(found: RunExplanation) -> str:
    """Where time goes, what was waited for, what limits."""
    lines = [
        f"{count(found.num_requests)} finished requests, E2E {duration(found.mean_e2e_s)} in the mean",
        "",
        *_shares(found),
        "",
        *_limits(found),
        "",
        *_engines(found),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _shares(found: RunExplanation) -> Iterator[str]:
    yield f"{'where time goes':<38} {'mean':>9} {'of E2E':>7}"
    shown = [one for one in found.shares[:MOST_SHARES] if one.frac >= LEAST_FRAC]
    for one in shown:
        name = f"{one.stage}, {PART_WORDS[one.part]}"
        yield f"  {_cut(name, 36):<36} {duration(one.mean_s):>9} {percent(one.frac):>7}  {'█' * round(20 * one.frac)}"
    rest_s = found.mean_e2e_s - sum(one.mean_s for one in shown)
    if found.mean_e2e_s and rest_s / found.mean_e2e_s >= LEAST_FRAC:
        yield f"  {'the rest':<36} {duration(rest_s):>9} {percent(rest_s / found.mean_e2e_s):>7}"


def _limits(found: RunExplanation) -> Iterator[str]:
    """The bottleneck in words: of latency, and whether it is one of throughput too."""
    if found.bottleneck is not None:
        limit = found.bottleneck
        waits = f", {percent(limit.waiting_frac)} of it in line" if limit.waiting_frac >= LEAST_FRAC else ""
        yield from _wrapped("bottleneck", f"{limit.words}: {percent(limit.frac)} of E2E{waits}")
        others = [f"{one.words} {percent(one.frac)}" for one in found.limits[1:4] if one.frac >= LEAST_FRAC * 2]
        if others:
            yield from _wrapped("then", " · ".join(others))
    if found.growth is None:
        text = f"set by what arrives, {digits(found.offered_per_s)} requests/s: no queue grows"
    else:
        served = f"{digits(found.served_per_s)} of {digits(found.offered_per_s)} requests/s"
        text = f"saturated, {served} are served: what limits latency limits it too"
    yield from _wrapped("throughput", text)


def _engines(found: RunExplanation) -> Iterator[str]:
    yield f"{'engine':<16} {'busy':>5} {'limited by':>13} {'batch':>11} {'peak KV':>7}  wait of a request"
    working = [one for one in found.engines if one.utilization_frac > 0.0]
    for one in working[:MOST_ENGINES]:
        name = one.engine if one.num_replicas == 1 else f"{one.engine} x {one.num_replicas}"
        limited = f"{one.limited_by} {percent(one.limited_frac)}" if one.limited_frac else "-"
        batch = digits(one.mean_batch) if one.mean_batch > 0.0 else "-"
        batch += "" if one.max_batch is None else f" of {one.max_batch}"
        kv = "-" if one.peak_kv_used_frac is None else percent(one.peak_kv_used_frac)
        yield (
            f"{_cut(name, 16):<16} {percent(one.utilization_frac):>5} {limited:>13} {batch:>11} {kv:>7}  "
            f"{_wait_words(one)}"
        )
    if len(working) > MOST_ENGINES:
        yield f"and {len(working) - MOST_ENGINES} more"


def _wait_words(engine: EngineState) -> str:
    waits = {name: seconds for name, seconds in engine.wait_s.items() if seconds > LEAST_S}
    total_s = sum(waits.values())
    if total_s <= 0.0:
        return "-"
    largest = max(waits, key=lambda name: waits[name])
    return f"{duration(total_s)} ({largest} {percent(waits[largest] / total_s)})"


def _named(parts: Mapping[str, float], total_s: float | None = None) -> str:
    """`KV memory full 480 ms · engine busy 32 ms`, the longest first."""
    known = sorted(((seconds, part) for part, seconds in parts.items() if seconds > 0.0), reverse=True)
    least_s = LEAST_FRAC * (total_s or sum(parts.values()))
    return " · ".join(f"{PART_WORDS[part]} {duration(seconds)}" for seconds, part in known if seconds >= least_s)


def _wrapped(label: str, text: str) -> list[str]:
    """A label of its own column, the text beside it."""
    width = 17
    head = label if len(label) < width else _cut(label, width - 1)
    return textwrap.wrap(text, WIDTH, initial_indent=f"{head:<{width}}", subsequent_indent=" " * width) or []


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
