"""The summary as a person reads it: one screen of aligned plain text, at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from hermes_sim.analysis import human

Summary = Mapping[str, Any]

WIDTH = 100
LABEL_WIDTH = 19
COLUMNS = ("mean", "p50", "p90", "p99")
STAGE_PARTS = ("queue", "compute", "memory", "network", "host", "transfer")
DRAFT_PART = "draft_wait"
"""Shown where devices of their own draft."""
INTERVAL_WIDTH = 20
HALF_WIDTH_DIGITS = 2
"""Significant digits: a half-width of few runs is not known better."""
MAX_ENGINES_SHOWN = 8
MAX_LINKS_SHOWN = 3
LEAST_SHOWN = {"mean_batch": 0.005, "num_waiting": 0.5, "mean_kv_used_frac": 0.005}
"""What stays below it is left to timeline.parquet."""
BARS = "▁▂▃▄▅▆▇█"
NO_BAR = "·"
LEAST_SHOWN_S = 1e-9
"""Rounding leaves shorter queues than this behind."""
LEAST_SHOWN_FRAC = 0.01
"""Links less used than this are left to links.parquet."""
LATENCY_NAMES = {"ttft": "TTFT", "ttfat": "TTFAT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
HELD_WORDS = {"kv": "too few free KV blocks", "batch": "a full batch", "budget": "prompts ahead"}
RESOURCE_NAMES = {"compute": "compute", "memory": "memory bandwidth", "network": "the network", "host": "the host"}
PROVENANCE_NAMES = {
    "measured": "measured",
    "interpolated": "interpolated from measurement",
    "analytic": "analytic",
    "estimate": "estimated",
    "unstated": "not itemised",
}
REPLICATED = {
    "requests_per_s": "{} requests/s",
    "output_tokens_per_s": "{} output tokens/s",
    "goodput_per_s": "goodput {} requests/s",
    "slo_met_frac": "share within the SLO {}",
    "energy_per_output_token_j": "{} J/output token",
    "cost_per_million_output_tokens_usd": "{} $/million output tokens",
}


def render(summary: Summary) -> str:
    """The whole summary, without the header line."""
    blocks = [
        _latency(summary),
        _ttft_parts(summary),
        _written(summary),
        _stages(summary),
        _throughput(summary),
        _classes(summary),
        _images(summary),
        _engines(summary),
        _availability(summary),
        _over_time(summary),
        _shortened(summary),
        _searches(summary),
        _waits(summary),
        _speculation(summary),
        _adapters(summary),
        _links(summary),
        _device_groups(summary),
        _kv_stores(summary),
        _energy_and_cost(summary),
        _trust(summary),
        _bottleneck(summary),
        _replications(summary),
        _warnings(summary),
    ]
    return "\n".join(line.rstrip() for block in blocks for line in block)


def header(setting: Mapping[str, Any]) -> str:
    """`cluster · hardware        workload · traffic`, on two lines where one is too short."""
    left = f"{setting['cluster']} · {setting['hardware']}"
    right = f"{setting['workload']} · {setting['traffic']}, seed {setting['seed']}"
    gap = min(max(4, WIDTH // 2 - len(left)), WIDTH - len(left) - len(right))
    if gap >= 4:
        return f"{left}{' ' * gap}{right}"
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in (left, right))


def run_line(summary: Summary, wall_time_s: float | None) -> str:
    """How many requests got through, the simulated time, and what it took."""
    num = summary["requests"]["num"]
    finished = summary["requests"]["num_finished"]
    done = human.count(num) if finished == num else f"{human.count(finished)} of {human.count(num)}"
    noun = "request" if num == 1 else "requests"
    took = "" if wall_time_s is None else f" in {human.duration(wall_time_s)}"
    return f"{'simulated':<{LABEL_WIDTH}}{done} {noun} · {human.duration(summary['run']['duration_s'])}{took}"


def latency_rows(summary: Summary) -> list[list[str]]:
    """Header row, then one row per latency: name, mean, p50, p90, p99, its objectives; more of these below it."""
    rows = [["latency", *COLUMNS, "SLO"]]
    for name, shown in LATENCY_NAMES.items():
        if name not in summary["latency"]:
            continue
        values = [summary["latency"][name][f"{column}_s"] for column in COLUMNS]
        unit = human.time_unit(values)
        first, *others = [_objective(line) for line in summary["slo"]["objectives"] if line["latency"] == name] or [""]
        rows.append([shown, *(human.in_unit(value, unit) for value in values), first])
        rows += [["", *("" for _ in values), objective] for objective in others]
    return rows


def _objective(line: Mapping[str, Any]) -> str:
    """`p99 <= 2 s missed by 16%`."""
    multiple = line["limit_multiple"]
    limit = human.as_written(line["limit_s"]) if multiple is None else f"{multiple:g} x unloaded"
    text = f"{line['statistic']} <= {limit}"
    if line["service_class"] is not None:
        text = f"{line['service_class']}: {text}"
    if line["met"] is None:
        return f"{text} no such request"
    if multiple is not None and line["observed_multiple"] is not None:
        return f"{text} {'met' if line['met'] else 'missed'}: {line['observed_multiple']:.3g} x"
    if line["met"]:
        return f"{text} met"
    if line["excess_frac"] is None:
        return f"{text} missed by failed requests"
    if line["excess_frac"] >= 1:
        return f"{text} missed {human.digits(1 + line['excess_frac'])}-fold"
    return f"{text} missed by {human.percent(line['excess_frac'])}"


def _latency(summary: Summary) -> Iterator[str]:
    for index, (name, *values, slo) in enumerate(latency_rows(summary)):
        label = name if index == 0 else f"  {name}"
        yield f"{label:<{LABEL_WIDTH - 4}}" + "".join(f"{value:>11}" for value in values) + f"   {slo}"


def _labelled(label: str, parts: Sequence[str]) -> Iterator[str]:
    """`label   part · part`, continued below itself where it is too long."""
    line = f"{label:<{LABEL_WIDTH}}"
    for index, part in enumerate(parts):
        if index and len(line) + 3 + len(part) > WIDTH:
            yield line
            line = " " * LABEL_WIDTH + part
        else:
            line += f" · {part}" if index else part
    yield line


def _ttft_parts(summary: Summary) -> Iterator[str]:
    parts = [
        f"{name.replace('_', ' ')} {human.percent(part['frac'])}"
        for name, part in summary["ttft_parts"].items()
        if part["frac"] is not None and part["frac"] >= 0.0005
    ]
    if parts:
        yield from _labelled("where TTFT goes", parts)


def _written(summary: Summary) -> Iterator[str]:
    """Where requests take several passes, think, or are answered by one of several models."""
    requests = summary["requests"]
    finished = max(requests["num_finished"], 1)
    parts = []
    if requests["num_passes"] > finished:
        parts.append(f"{human.digits(requests['num_passes'] / finished)} passes")
    for kind in ("thought", "note"):
        if requests[f"num_{kind}_tokens"]:
            parts.append(f"{human.digits(requests[f'num_{kind}_tokens'] / finished)} {kind} tokens")
    if requests["mean_quality"] is not None:
        parts.append(f"answer quality {human.digits(requests['mean_quality'])}")
    if parts:
        yield from _labelled("a request takes", parts)


def _stages(summary: Summary) -> Iterator[str]:
    if not summary["stages"]:
        return
    waits_for_drafts = any(stage[f"{DRAFT_PART}_s"] for stage in summary["stages"])
    parts = (*STAGE_PARTS, DRAFT_PART) if waits_for_drafts else STAGE_PARTS
    names = (part.removesuffix("_wait") for part in parts)
    yield f"{'time per visit':<{LABEL_WIDTH}}{'visits':>8}" + "".join(f"{name:>11}" for name in names)
    for stage in summary["stages"]:
        times_s = [stage[f"{part}_s"] for part in parts]
        times_s = [time_s if time_s is not None and time_s >= LEAST_SHOWN_S else None for time_s in times_s]
        unit = human.time_unit([max((time_s for time_s in times_s if time_s is not None), default=None)])
        cells = [_cell(time_s, unit) for time_s in times_s]
        name = f"  {stage['stage']}"
        yield f"{name:<{LABEL_WIDTH}}{human.count(stage['num_visits']):>8}" + "".join(f"{cell:>11}" for cell in cells)


def _cell(time_s: float | None, unit: str) -> str:
    """In the unit of its row, or in its own where that would be mostly zeros."""
    own = human.time_unit([time_s])
    text = human.in_unit(time_s, unit)
    return text if len(text) < 10 else human.in_unit(time_s, own)


def _throughput(summary: Summary) -> Iterator[str]:
    rates, slo = summary["throughput"], summary["slo"]
    if rates["requests_per_s"] is None:
        return
    parts = [
        f"{_rate(rates['requests_per_s'])} requests/s",
        f"{_rate(rates['output_tokens_per_s'])} output tokens/s",
    ]
    if rates["drawn_images_per_s"]:
        parts.append(f"{_rate(rates['drawn_images_per_s'])} images/s")
    if rates["goodput_per_s"] is not None:
        met = human.percent(slo["met_frac"])
        parts.append(f"goodput {_rate(rates['goodput_per_s'])} requests/s ({met} met the SLO)")
    yield from _labelled("throughput", parts)


def _classes(summary: Summary) -> Iterator[str]:
    """One row a class: what became of its requests, how fast they were."""
    records = summary["classes"]
    if not records:
        return
    titles = ("requests", "finished", "rejected", "left", "TTFT p50", "TTFT p99", "goodput", "in the SLO")
    widths = (10, 10, 10, 7, 11, 11, 12, 12)
    yield f"{'classes':<{LABEL_WIDTH}}" + _cells(titles, widths)
    for record in records:
        ttft = record["ttft"]
        cells = (
            human.count(record["num"]),
            human.count(record["num_finished"]),
            human.count(record["num_rejected"]),
            human.count(record["num_left"]),
            human.duration(ttft["p50_s"]),
            human.duration(ttft["p99_s"]),
            f"{_rate(record['goodput_per_s'])} /s",
            human.percent(record["slo_met_frac"]),
        )
        yield f"  {record['service_class']:<{LABEL_WIDTH - 2}}" + _cells(cells, widths)


def _images(summary: Summary) -> Iterator[str]:
    """What encoders and diffusion models have done."""
    requests, parts = summary["requests"], []
    if requests["num_images"]:
        found = human.percent(requests["num_cached_images"] / requests["num_images"])
        parts.append(f"{requests['num_images']:,} encoded, {found} found in a cache")
    if requests["num_drawn_images"]:
        steps = requests["num_denoising_steps"] / requests["num_drawn_images"]
        parts.append(f"{requests['num_drawn_images']:,} drawn in {human.digits(steps)} steps on average")
    if parts:
        yield from _labelled("images", parts)
    if requests["num_refused"]:
        refused = human.percent(requests["num_refused"] / requests["num"])
        yield from _labelled("guards", [f"{requests['num_refused']:,} requests refused ({refused})"])


def _rate(value: float | None) -> str:
    return human.NOTHING if value is None else human.digits(value)


def _engines(summary: Summary) -> Iterator[str]:
    engines = summary["engines"]
    if not engines:
        return
    titles = ("busy", "limited by", "batch", "KV used", "MFU", "MBU", "prefix hits")
    widths = (6, 15, 8, 9, 7, 7, 13)
    yield f"{'engines':<{LABEL_WIDTH}}" + _cells(titles, widths)
    for name, group in _engine_groups(engines):
        yield f"  {name:<{LABEL_WIDTH - 2}}" + _cells(_engine_cells(group), widths)


def _availability(summary: Summary) -> Iterator[str]:
    """Where replicas come and go."""
    duration_s, parts = summary["run"]["duration_s"], []
    for name, engines in groupby(summary["engines"], lambda engine: str(engine["engine"]).split("[")[0]):
        group = list(engines)
        on_s = _total(group, "on_s")
        if duration_s > 0 and on_s < len(group) * duration_s:
            parts.append(f"{name} {human.digits(on_s / duration_s)} of {len(group)} on average")
    if parts:
        yield from _labelled("replicas on", parts)


def _cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _engine_groups(engines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Each engine alone, or the replicas of a name together where there are many: `llm (16)`, means over them (batch:
    over their busy time)."""
    if len(engines) <= MAX_ENGINES_SHOWN:
        return [(str(engine["engine"]), [engine]) for engine in engines]
    grouped = [(name, list(group)) for name, group in groupby(engines, lambda engine: engine["engine"].split("[")[0])]
    return [(f"{name} ({len(group)})" if len(group) > 1 else name, group) for name, group in grouped]


def _engine_cells(group: Sequence[Mapping[str, Any]]) -> list[str]:
    def mean(key: str) -> float:
        values = [engine[key] for engine in group if engine[key] is not None]
        return sum(values) / len(values) if values else math.nan

    busy_s = sum(engine["busy_s"] for engine in group)
    batch_s = sum(engine["busy_s"] * engine["mean_batch"] for engine in group if engine["busy_s"])

    limits = Counter(engine["limited_by"] for engine in group if engine["limited_frac"] is not None)
    limited = f"{limits.most_common(1)[0][0]} {human.percent(mean('limited_frac'))}" if limits else human.NOTHING
    has_kv = any(engine["num_blocks"] for engine in group)
    num_cached = sum(engine["num_cached_tokens"] for engine in group)
    num_prompt = sum(engine["num_prompt_tokens"] for engine in group) + num_cached
    return [
        human.percent(mean("utilization_frac")),
        limited,
        human.digits(batch_s / busy_s) if busy_s else human.NOTHING,
        human.percent(mean("mean_kv_used_frac")) if has_kv else human.NOTHING,
        human.percent(mean("mfu_frac")),
        human.percent(mean("mbu_frac")),
        human.percent(num_cached / num_prompt) if has_kv and num_prompt else human.NOTHING,
    ]


def _over_time(summary: Summary) -> Iterator[str]:
    """Lines of bars for the busiest engine: batch, line, KV use, and replicas that take requests where some do not."""
    found = summary["over_time"]
    if found is None:
        return
    title = f"{found['engine']} over time"
    for name, column in (("batch", "mean_batch"), ("waiting", "num_waiting"), ("KV used", "mean_kv_used_frac")):
        values = found[column]
        highest = max(values)
        if highest < LEAST_SHOWN[column]:
            continue
        words = human.percent(highest) if column.endswith("_frac") else human.digits(highest)
        yield f"{title:<{LABEL_WIDTH}}{name:<9}{bars(values)}  up to {words}"
        title = ""
    up = found["num_up"]
    if min(up) < max(up):
        yield f"{title:<{LABEL_WIDTH}}{'up':<9}{bars(up)}  {human.digits(min(up))} to {human.digits(max(up))}"


def bars(values: Sequence[float]) -> str:
    """One character a value, as high as its share of the largest; nothing at all is a dot."""
    highest = max(values)
    return "".join(
        BARS[min(int(value / highest * len(BARS)), len(BARS) - 1)] if value > 0 else NO_BAR for value in values
    )


def _shortened(summary: Summary) -> Iterator[str]:
    """Reasoning that was not written, and what looking for its end has cost."""
    requests = summary["requests"]
    if requests["num_saved_tokens"] == 0 and requests["num_probe_tokens"] == 0:
        return
    written, saved = requests["num_output_tokens"], requests["num_saved_tokens"]
    shares = (saved / max(written + saved, 1), requests["num_probe_tokens"] / max(written, 1))
    of_all, of_written = (human.percent(share) for share in shares)
    yield from _labelled("cut short", [f"{of_all} of the output saved", f"{of_written} of the rest trial answers"])


def _searches(summary: Summary) -> Iterator[str]:
    """What verifiers have scored, and how much of what was written no path has kept."""
    requests = summary["requests"]
    if requests["num_candidates"] == 0:
        return
    each = human.digits(requests["num_candidates"] / requests["num"])
    lost = human.percent(requests["num_discarded_tokens"] / max(requests["num_output_tokens"], 1))
    yield from _labelled("search", [f"{each} candidates a request scored", f"{lost} of the output discarded"])


def _waits(summary: Summary) -> Iterator[str]:
    """What became of the KV of requests that were away between two passes."""
    ways = ("kept", "dropped", "offloaded")
    label = "KV while away"
    for name, group in _engine_groups(summary["engines"]):
        counts = {way: _total(group, f"num_{way}_waits") for way in ways}
        if not any(counts.values()):
            continue
        parts = [f"{human.count(number)} times {way}" for way, number in counts.items() if number]
        if counts["kept"]:
            block_s = sum(engine["num_blocks"] * engine["duration_s"] for engine in group)
            parts.append(f"{human.percent(_total(group, 'kept_block_s') / block_s)} of its memory held")
        yield from _labelled(label, [f"{name}: {parts[0]}", *parts[1:]])
        label = ""


def _speculation(summary: Summary) -> Iterator[str]:
    groups = [group for group in _engine_groups(summary["engines"]) if _total(group[1], "num_drafted_tokens")]
    for index, (name, group) in enumerate(groups):
        accepted = _total(group, "num_accepted_tokens") / _total(group, "num_drafted_tokens")
        per_step = [engine["tokens_per_decode"] for engine in group if engine["tokens_per_decode"] is not None]
        parts = [
            f"{name}: {human.percent(accepted)} of the drafts accepted",
            f"{human.digits(sum(per_step) / len(per_step))} tokens per sequence and step",
        ]
        num_rounds = _total(group, "num_draft_rounds")
        if num_rounds:
            boards = " + ".join(sorted({engine["draft_devices"] for engine in group}))
            wait_s = sum(engine["draft_round_s"] * engine["num_draft_rounds"] for engine in group) / num_rounds
            parts.append(f"drafts of {boards} after {human.duration(wait_s)}")
            ahead = _total(group, "num_pre_drafts")
            if ahead:
                share = human.percent(_total(group, "num_pre_drafts_right") / ahead)
                parts.append(f"{share} of what they drafted ahead was of use")
        yield from _labelled("" if index else "speculation", parts)


def _adapters(summary: Summary) -> Iterator[str]:
    """Where low-rank adapters are loaded."""
    groups = [group for group in _engine_groups(summary["engines"]) if _total(group[1], "num_adapter_loads")]
    for index, (name, group) in enumerate(groups):
        loads, hits = _total(group, "num_adapter_loads"), _total(group, "num_adapter_hits")
        found = human.percent(hits / (hits + loads))
        yield from _labelled("" if index else "adapters", [f"{name}: {found} found in a slot, {loads:,.0f} loaded"])


def _total(group: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(sum(engine[key] for engine in group))


def _links(summary: Summary) -> Iterator[str]:
    busy = sorted(summary["links"], key=lambda link: float(link["utilization_frac"]), reverse=True)
    parts = [
        f"{link['link']} {human.percent(link['utilization_frac'])}, {human.with_prefix(link['bytes'], 'B')}"
        for link in busy[:MAX_LINKS_SHOWN]
        if link["utilization_frac"] >= LEAST_SHOWN_FRAC
    ]
    if parts:
        yield from _labelled("links", parts)


def _device_groups(summary: Summary) -> Iterator[str]:
    """Of engines that span several, or compute in arrays: how busy each was, and what it drew."""
    parts = [
        f"{one['engine']} {one['group']} ({one['operators']}) {human.percent(one['utilization_frac'])} busy, "
        f"{human.digits(one['energy_j'])} J"
        for one in summary["device_groups"]
    ]
    if parts:
        yield from _labelled("device groups", parts)


def _kv_stores(summary: Summary) -> Iterator[str]:
    """What of the prompts each store had, and what it sent."""
    parts = [
        f"{store['store']} {human.percent(store['hit_frac'])} of {human.count(store['num_asked_tokens'])} tokens, "
        f"{human.with_prefix(store['read_bytes'], 'B')} read, {human.with_prefix(store['written_bytes'], 'B')} written"
        for store in summary["kv_stores"]
        if store["hit_frac"] is not None
    ]
    if parts:
        yield from _labelled("KV stores", parts)


def _energy_and_cost(summary: Summary) -> Iterator[str]:
    numbers, pue = summary["energy_and_cost"], f"(PUE {summary['energy_and_cost']['pue']:g})"
    if numbers["carbon_per_request_g"] is None:
        return
    if numbers["energy_per_output_token_j"] is None:  # no output tokens: prefill or retrieval only
        energy_j = numbers["facility_energy_j"] / summary["requests"]["num_finished"]
        energy = f"{human.digits(energy_j)} J/request {pue}"
        cost = f"{human.usd(numbers['cost_per_request_usd'])} per request"
    else:
        energy = f"{human.digits(numbers['energy_per_output_token_j'])} J/output token {pue}"
        cost = f"{human.usd(numbers['cost_per_million_output_tokens_usd'])} per million output tokens"
    if numbers["electricity_usd"] > 0.0:
        cost += f" ({human.percent(numbers['electricity_usd'] / numbers['cost_usd'])} of it electricity)"
    carbon = f"{human.digits(numbers['carbon_per_request_g'])} gCO2e per request"
    yield from _labelled("energy and cost", [energy, cost, carbon])


def _trust(summary: Summary) -> Iterator[str]:
    trust = summary["trust"]
    known = {name: share for name, share in trust["provenance_frac"].items() if share >= 0.0005}
    shares = [f"{human.percent(share)} {PROVENANCE_NAMES[name]}" for name, share in known.items()]
    if shares:
        yield from _labelled("trust", [f"service time {shares[0]}", *shares[1:]])
    bands = {
        latency: band for latency, band in trust.get("bands", {}).items() if None not in (band["low_s"], band["high_s"])
    }
    if bands:
        spans = [
            f"{latency.upper()} {human.duration(band['low_s'])} to {human.duration(band['high_s'])}"
            for latency, band in bands.items()
        ]
        yield from _labelled("" if shares else "trust", [f"mean {spans[0]}", *spans[1:], "(90% band)"])
    guessed = [
        f"{name} ({', '.join(part for part, kind in parts.items() if kind == 'estimate')})"
        for name, parts in trust["speed_sources"].items()
        if "estimate" in parts.values()
    ]
    if guessed:
        lines = textwrap.wrap(f"estimates, not published or measured: {', '.join(guessed)}", WIDTH - LABEL_WIDTH)
        yield from (f"{'' if shares or index else 'trust':<{LABEL_WIDTH}}{line}" for index, line in enumerate(lines))


def _bottleneck(summary: Summary) -> Iterator[str]:
    found = summary["bottleneck"]
    if found is None:
        return
    share = human.percent(found["share_frac"])
    busy = f"{found['engine']} is busy {human.percent(found['utilization_frac'])}"
    if found["part"] == "queue":
        what = f"waiting for {found['stage']}"
        if found["resource_frac"] is not None:
            resource = RESOURCE_NAMES[found["resource"]]
            busy += f", limited by {resource} for {human.percent(found['resource_frac'])} of that"
        if found.get("held_by") is not None:
            busy += f"; {human.percent(found['held_frac'])} of the wait: {HELD_WORDS[found['held_by']]}"
    elif found["part"] == "transfer":
        what = f"moving the input of {found['stage']}"
    elif found["part"] == DRAFT_PART:
        what = f"{found['stage']}, waiting for drafts of other devices"
    else:
        what = f"{found['stage']}, limited by {RESOURCE_NAMES[found['part']]}"
    yield from _labelled("most time goes to", [f"{what}: {share} of all request time", busy])


def _replications(summary: Summary) -> Iterator[str]:
    replications = summary["replications"]
    if replications is None:
        return
    metrics = replications["metrics"]
    title = f"over {len(replications['seeds'])} seeds"
    yield f"{title:<{LABEL_WIDTH}}" + "".join(f"{column:>{INTERVAL_WIDTH}}" for column in COLUMNS)
    for latency, shown in LATENCY_NAMES.items():
        if latency not in summary["latency"]:
            continue
        cells = [_interval_s(metrics[f"{latency}_{name}_s"]) for name in COLUMNS]
        yield f"  {shown:<{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{INTERVAL_WIDTH}}" for cell in cells)
    known = {name: words for name, words in REPLICATED.items() if metrics[name]["mean"] is not None}
    rates = [words.format(_interval(metrics[name], name.endswith("_frac"))) for name, words in known.items()]
    yield from _labelled("  rates", rates)
    yield " " * LABEL_WIDTH + "mean over the seeds ± half-width of its 95% confidence interval"


def _interval_s(interval: Mapping[str, float | None]) -> str:
    unit = human.time_unit([interval["mean"]])
    mean = human.in_unit(interval["mean"], unit).split(" ", maxsplit=1)[0]
    half_width = human.in_unit(interval["half_width_95"], unit, HALF_WIDTH_DIGITS)
    return f"{mean} ± {half_width}"


def _interval(interval: Mapping[str, float | None], is_share: bool) -> str:
    mean, half_width = interval["mean"], interval["half_width_95"]
    if is_share:
        return f"{human.percent(mean)} ± {human.percent(half_width)}"
    return f"{_rate(mean)} ± {human.NOTHING if half_width is None else human.digits(half_width, HALF_WIDTH_DIGITS)}"


def _warnings(summary: Summary) -> Iterator[str]:
    for warning in summary["warnings"]:
        label = "note" if warning["kind"] == "note" else "warning"
        for index, line in enumerate(textwrap.wrap(warning["text"], WIDTH - LABEL_WIDTH)):
            yield f"{label if index == 0 else '':<{LABEL_WIDTH}}{line}"
