"""The summary of a run: every metric as one JSON object, base units, None for what has no value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from hermes_sim.analysis import findings, metrics
from hermes_sim.analysis.bottleneck import find_bottleneck
from hermes_sim.analysis.classes import ENDINGS, class_records
from hermes_sim.analysis.confidence import interval_record, run_estimates
from hermes_sim.analysis.critical_path import ttft_parts
from hermes_sim.analysis.engine_findings import engine_findings
from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.objectives import Verdict, judge
from hermes_sim.analysis.over_time import over_time
from hermes_sim.analysis.replications import confidence_intervals
from hermes_sim.analysis.served_bands import run_bands
from hermes_sim.analysis.setting import scenario_words
from hermes_sim.analysis.trust import provenance_fracs, speed_sources, weakest_sources

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

LATENCIES = ("ttft", "ttfat", "tpot", "e2e")
LATENCY_ORDER = ("ttft", "ttfat", "tpot", "itl", "e2e", "engine_ttft")


def summarize(results: Results) -> dict[str, Any]:
    """Everything that is known about a run, in the order in which it is shown.

    Latencies, SLOs and stage times: measured requests. Rates and percentiles of ITL: the measured window. Engines,
    links, energy and cost: the whole run.
    """
    measured = results.measured_requests
    verdicts = [judge(objective, measured, results.itl, results.unloaded) for objective in results.objectives]
    summary = {
        "scenario": scenario_words(results.scenario),
        "run": _run(results),
        "requests": _requests(results),
        "latency": _latency(results),
        "slo": _slo(results, verdicts),
        "classes": class_records(results.measured_requests, results.requests, results.window),
        "ttft_parts": _ttft_parts(results),
        "stages": _records(metrics.stage_times(results.measured_visits)),
        "throughput": _throughput(results),
        "engines": _engines(results.engines),
        "over_time": over_time(results.timeline),
        "links": [_record(row) for _, row in results.links.iterrows()],
        "device_groups": []
        if results.device_groups is None
        else [_record(row) for _, row in results.device_groups.iterrows()],
        "kv_stores": [] if results.kv_stores is None else [_record(row) for _, row in results.kv_stores.iterrows()],
        "energy_and_cost": _energy_and_cost(results),
        "trust": {
            "provenance_frac": provenance_fracs(results.operators, results.visits),
            "weakest_source": weakest_sources(results.scenario),
            "speed_sources": speed_sources(results.scenario),
            "bands": _bands(results),
        },
        "bottleneck": _bottleneck(results),
        "warnings": [{"kind": found.kind, "text": found.text} for found in _findings(results, verdicts)],
        "replications": _replications(results),
        "confidence": _confidence(results),
    }
    cleaned: dict[str, Any] = _jsonable(summary)
    return cleaned


def row_summary(results: Results) -> dict[str, Any]:
    """The parts of the summary that the numbers of a run among many come from, as they are in the whole."""
    verdicts = [judge(one, results.measured_requests, results.itl, results.unloaded) for one in results.objectives]
    summary = {
        "run": _run(results),
        "requests": _requests(results),
        "latency": _latency(results),
        "slo": _slo(results, verdicts),
        "ttft_parts": _ttft_parts(results),
        "throughput": _throughput(results),
        "energy_and_cost": _energy_and_cost(results),
    }
    cleaned: dict[str, Any] = _jsonable(summary)
    return cleaned


def _run(results: Results) -> dict[str, Any]:
    window = results.window
    return {
        "version": results.version,
        "duration_s": results.duration_s,
        "measured_from_s": window.start_s,
        "measured_to_s": window.end_s,
        "num_events": results.num_events,
        "num_steps": results.num_steps,
        "warm_up": None if results.warm_up is None else asdict(results.warm_up),
        "notes": list(results.notes),
    }


def _requests(results: Results) -> dict[str, Any]:
    requests = results.requests
    finished = is_finished(requests)
    status = requests["status"].value_counts()
    return {
        "num": len(requests),
        "num_measured": int(results.window.measured.sum()),
        **{f"num_{name}": int(status.get(name, 0)) for name in ENDINGS},
        "num_clipped": int((requests["num_clipped_tokens"] > 0).sum()),
        "num_hedges": int(requests["num_hedges"].sum()),
        "num_refused": int((requests["num_refusals"] > 0).sum()),
        "num_retries": int(requests["num_retries"].sum()),
        "num_preemptions": int(requests["num_preemptions"].sum()),
        "num_prompt_tokens": int(requests["num_prompt_tokens"].sum()),
        "num_output_tokens": int(requests["num_output_tokens"][finished].sum()),
        "num_thought_tokens": int(requests["num_thought_tokens"][finished].sum()),
        "num_note_tokens": int(requests["num_note_tokens"][finished].sum()),
        "num_passes": int(requests["num_passes"][finished].sum()),
        "mean_quality": float(requests["quality"][finished].mean()),
        "num_samples": int(requests["num_samples"].sum()),
        "num_candidates": int(requests["num_candidates"].sum()),
        "num_discarded_tokens": int(requests["num_discarded_tokens"][finished].sum()),
        "num_saved_tokens": int(requests["num_saved_tokens"][finished].sum()),
        "num_probe_tokens": int(requests["num_probe_tokens"][finished].sum()),
        "num_image_tokens": int(requests["num_image_tokens"].sum()),
        "num_images": int(requests["num_images"].sum()),
        "num_cached_images": int(requests["num_cached_images"].sum()),
        "num_drawn_images": int(requests["num_drawn_images"][finished].sum()),
        "num_denoising_steps": int(requests["num_denoising_steps"][finished].sum()),
        "prefix_hit_frac": metrics.prefix_hit_frac(requests),
        "num_reloaded_tokens": int(requests["num_reloaded_tokens"].sum()),
    }


def _latency(results: Results) -> dict[str, Any]:
    measured = results.measured_requests
    finished = measured[is_finished(measured)]
    latency = {name: metrics.latency_percentiles(floats(finished, f"{name}_s")) for name in LATENCIES}
    latency["itl"] = metrics.itl_percentiles(results.itl, measured)
    comes_later = measured["num_thought_tokens"].any() or measured["num_candidates"].any()
    if not comes_later and not any(one.latency == "ttfat" for one in results.objectives):
        del latency["ttfat"]  # the first token is the answer's
    latency["engine_ttft"] = metrics.latency_percentiles(floats(finished, "engine_ttft_s"))
    return {name: latency[name] for name in LATENCY_ORDER if name in latency}


def _slo(results: Results, verdicts: list[Verdict]) -> dict[str, Any]:
    met = results.measured_requests["slo_met"]
    known = [verdict.met for verdict in verdicts if verdict.met is not None]
    return {
        "met": all(known) if known else None,
        "met_frac": float(met.mean()) if len(met) and verdicts else math.nan,
        "objectives": [_objective(verdict) for verdict in verdicts],
    }


def _objective(verdict: Verdict) -> dict[str, Any]:
    objective = verdict.objective
    multiple = objective.is_multiple
    return {
        "latency": objective.latency,
        "service_class": objective.service_class,
        "statistic": objective.statistic,
        "limit_s": None if multiple else objective.bound,
        "limit_multiple": objective.bound if multiple else None,
        "observed_s": None if multiple else verdict.observed,
        "observed_multiple": verdict.observed if multiple else None,
        "met": verdict.met,
        "excess_frac": verdict.excess_frac,
        "attained_frac": verdict.attained_frac,
    }


def _ttft_parts(results: Results) -> dict[str, dict[str, float]]:
    measured = results.measured_requests
    parts = ttft_parts(measured[is_finished(measured)], results.measured_visits).mean()
    total_s = float(parts.sum())
    return {
        str(name): {"mean_s": float(mean_s), "frac": float(mean_s) / total_s if total_s else math.nan}
        for name, mean_s in parts.items()
    }


def _throughput(results: Results) -> dict[str, float]:
    requests, window = results.requests, results.window
    return {
        "requests_per_s": metrics.requests_per_s(requests, window),
        "output_tokens_per_s": metrics.output_tokens_per_s(requests, window),
        "prompt_tokens_per_s": metrics.prompt_tokens_per_s(requests, window),
        "goodput_per_s": metrics.goodput_per_s(requests, window) if results.objectives else math.nan,
        "drawn_images_per_s": metrics.drawn_images_per_s(requests, window),
    }


def _engines(engines: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for _, row in engines.iterrows():
        resource, share = metrics.limiting_resource(row)
        records.append({**_record(row), "limited_by": resource, "limited_frac": share})
    return records


def _energy_and_cost(results: Results) -> dict[str, float]:
    requests, engines, cluster = results.requests, results.engines, results.scenario.cluster
    pue = cluster.pue
    carbon_g = float(engines["carbon_g"].sum() + results.links["carbon_g"].sum())
    energy_j = metrics.facility_energy_j(engines, results.links, pue)
    return {
        "pue": pue,
        "carbon_g_per_kwh": carbon_g / (energy_j / metrics.J_PER_KWH) if energy_j > 0.0 else cluster.carbon_g_per_kwh,
        "carbon_g": carbon_g,
        "device_energy_j": float(engines["energy_j"].sum()),
        "link_energy_j": float(results.links["energy_j"].sum()),
        "facility_energy_j": energy_j,
        "energy_per_output_token_j": metrics.energy_per_output_token_j(requests, energy_j),
        "carbon_per_request_g": metrics.carbon_per_request_g(requests, carbon_g),
        "cost_usd": float(engines["cost_usd"].sum()),
        "electricity_usd": float(engines["electricity_usd"].sum()),
        "cost_per_million_output_tokens_usd": metrics.cost_per_million_output_tokens_usd(requests, engines),
        "cost_per_request_usd": metrics.cost_per_request_usd(requests, engines),
    }


def _bands(results: Results) -> dict[str, dict[str, float]]:
    """Where nine in ten measured means of such runs lie, by latency."""
    means = {latency: parts["mean_s"] for latency, parts in _latency(results).items()}
    return {
        latency: {"low_s": means[latency] * band.low_frac, "high_s": means[latency] * band.high_frac}
        for latency, band in run_bands(results.scenario).items()
    }


def _bottleneck(results: Results) -> dict[str, Any] | None:
    found = find_bottleneck(results.measured_visits, results.engines)
    return None if found is None else asdict(found)


def _findings(results: Results, verdicts: list[Verdict]) -> Iterable[findings.Finding]:
    requests, window = results.requests, results.window
    asked = {verdict.objective.statistic for verdict in verdicts} | {"p99"}
    single = (
        findings.nothing_measured(requests, window),
        findings.empty_window(requests, window),
        findings.saturated(results.visits, requests),
        findings.too_short(requests, window, asked),
        _warm_up(results),
    )
    yield from (found for found in single if found is not None)
    yield from findings.failed(requests)
    yield from engine_findings(results.engines, results.timeline)
    notes = dict.fromkeys((*results.scenario.notes, *results.notes))
    yield from (findings.Finding("note", note) for note in notes)


def _warm_up(results: Results) -> findings.Finding | None:
    found = results.warm_up
    if found is None:
        return findings.warm_up_included(results.requests, results.window)
    return findings.not_settled(found.is_steady, found.decided_by)


def _replications(results: Results) -> dict[str, Any] | None:
    if results.replications is None:
        return None
    seeds = [int(seed) for seed in results.replications["seed"]]
    return {"seeds": seeds, "metrics": confidence_intervals(results.replications)}


def _confidence(results: Results) -> dict[str, dict[str, Any]]:
    """What this run alone knows of its headline metrics."""
    latencies = [name for name in _latency(results) if name in LATENCIES]
    return {name: interval_record(estimate) for name, estimate in run_estimates(results, latencies).items()}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(frame.index.name): str(index), **_record(row)} for index, row in frame.iterrows()]


def _record(row: pd.Series) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _jsonable(value: Any) -> Any:
    """Plain Python values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
