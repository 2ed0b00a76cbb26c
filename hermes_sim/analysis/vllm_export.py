"""A run as the result file of vLLM's serving benchmark, so that scripts written for those read it.

Keys and definitions are those of `vllm bench serve --save-result --save-detailed` (source: vllm-project/vllm,
vllm/benchmarks/serve.py, calculate_metrics and benchmark): over all requests, warm-up included; times of the client, in
seconds in lists and in milliseconds in statistics. A request that was not served to its end has failed, and then its
output, TTFT and gaps are empty. What a simulation does not have is left out or empty: there are no texts and no date.
Gaps between tokens (`itls`) are written where they are known exactly: where steps were recorded. They are gaps between
messages as in vLLM: drafts accepted together come together. Without steps their mean is exact and their percentiles are
those of the run's histogram, unless the run has drafts or a warm-up; `itls_source` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import BoolArray, FloatArray, floats, is_finished
from hermes_sim.analysis.metrics import itl_percentiles
from hermes_sim.analysis.token_times import message_times_s
from hermes_sim.core.errors import HermesError
from hermes_sim.workload.arrivals.renewal import Gamma, Poisson

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.workload.traffic import Traffic

PERCENTILES: Final = (50, 90, 95, 99)
"""As with --metric-percentiles 50,90,95,99 and --percentile-metrics ttft,tpot,itl,e2el."""
BACKEND: Final = "hermes-sim"
NO_TOKENS: Final = "no output tokens"


def vllm_benchmark(results: Results) -> dict[str, Any]:
    """The file's content. Raises HermesError if no request of the run has an output."""
    requests = results.requests.sort_values("arrival_s", kind="stable")
    success = (
        is_finished(requests) & (floats(requests, "num_output_tokens") > 0) & requests["ttft_s"].notna().to_numpy()
    )
    if not success.any():
        raise HermesError("no request of this run has output tokens, which is what vLLM's benchmark measures")
    duration_s = results.duration_s
    done = requests[success]
    ttfts, latencies = floats(done, "ttft_s"), floats(done, "e2e_s")
    outputs, inputs = floats(done, "num_output_tokens"), floats(done, "num_prompt_tokens")
    several: BoolArray = outputs > 1
    tpots = (latencies[several] - ttfts[several]) / (outputs[several] - 1)
    times_s, why_not = _times(results, done)
    itls = None if times_s is None else [np.diff(own_s) for own_s in times_s]
    good = done["slo_met"].to_numpy(dtype=np.bool_)
    start_s = floats(done, "arrival_s")
    return {
        **_about(results, len(requests), why_not),
        "duration": duration_s,
        "completed": int(success.sum()),
        "failed": int((~success).sum()),
        "total_input_tokens": int(inputs.sum()),
        "total_output_tokens": int(outputs.sum()),
        "request_throughput": int(success.sum()) / duration_s,
        "request_goodput": float(good.sum()) / duration_s if results.objectives else None,
        "output_throughput": float(outputs.sum()) / duration_s,
        "total_token_throughput": float(inputs.sum() + outputs.sum()) / duration_s,
        **_details(requests, success, itls),
        **({} if times_s is None else {"max_output_tokens_per_s": _busiest_second(times_s, start_s)}),
        "max_concurrent_requests": _most_at_once(start_s, start_s + latencies),
        **_statistics("ttft", ttfts),
        **_statistics("tpot", tpots),
        **(_itl_histogram(results) if itls is None else _statistics("itl", np.concatenate(itls))),
        **_statistics("e2el", latencies),
    }


def _about(results: Results, num_requests: int, why_not: str | None) -> dict[str, Any]:
    """Setup and traffic, and as --metadata would write it where the numbers come from."""
    scenario = results.scenario
    models = dict.fromkeys(str(one.model) for one in scenario.cluster.engines if one.model is not None)
    return {
        "date": None,
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": f"{scenario.cluster.name} {scenario.workload.name}",
        "model_id": ", ".join(models),
        "tokenizer_id": None,
        "num_prompts": num_requests,
        "simulator": f"hermes-sim {results.version}",
        "seed": str(results.seed),
        "itls_source": "recorded steps"
        if why_not is None
        else f"left out: {why_not}; statistics: histogram of the run",
        **_traffic(scenario.workload.traffic),
    }


def _traffic(traffic: Traffic) -> dict[str, Any]:
    """A law that vLLM has, else `inf` as for requests that carry their own times."""
    law, users = traffic.arrivals, traffic.closed_loop
    cv = 1.0 if isinstance(law, Poisson) else law.cv if isinstance(law, Gamma) else None
    known = law is not None and cv is not None
    return {
        "request_rate": law.mean_rate_per_s if law is not None and known else "inf",
        "burstiness": 1.0 / cv**2 if cv else 1.0,
        "max_concurrency": users.concurrency if users is not None else None,
    }


def _details(requests: pd.DataFrame, success: BoolArray, itls: Sequence[FloatArray] | None) -> dict[str, Any]:
    """Lists with an entry a request, in the order in which they were sent."""
    reasons = [reason or status for reason, status in zip(requests["reason"], requests["status"], strict=True)]
    errors = [
        "" if good else NO_TOKENS if reason == "finished" else str(reason)
        for reason, good in zip(reasons, success, strict=True)
    ]
    lists: dict[str, Any] = {
        "input_lens": [int(number) for number in requests["num_prompt_tokens"]],
        "output_lens": np.where(success, floats(requests, "num_output_tokens"), 0.0).astype(np.int64).tolist(),
        "ttfts": np.where(success, floats(requests, "ttft_s"), 0.0).tolist(),
    }
    if itls is not None:
        gaps = iter(itls)
        lists["itls"] = [next(gaps).tolist() if good else [] for good in success]
    return {
        **lists,
        "start_times": floats(requests, "arrival_s").tolist(),
        "generated_texts": [""] * len(requests),
        "errors": errors,
    }


def _times(results: Results, done: pd.DataFrame) -> tuple[list[FloatArray] | None, str | None]:
    """[num_completed] when each message came, shifted to the client's first token; or why they are not known."""
    if results.steps is None or results.decisions is None:
        return None, "steps were not recorded (--steps)"
    found = message_times_s(done, results.steps, results.decisions)
    unknown = [number for number in done["request"].tolist() if number not in found]
    if unknown:
        return None, f"{len(unknown)} requests have several samples or passes, or tokens of several engines"
    shift_s = floats(done, "first_token_s") - floats(done, "engine_first_token_s")
    return [found[number] + by_s for number, by_s in zip(done["request"].tolist(), shift_s, strict=True)], None


def _statistics(name: str, values_s: FloatArray) -> dict[str, float]:
    """Mean, median, standard deviation and percentiles, 0 where there are no values (as vLLM)."""
    values = values_s * 1e3 if len(values_s) else np.zeros(1)
    percentiles = {f"p{share}_{name}_ms": float(np.percentile(values, share)) for share in PERCENTILES}
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        **percentiles,
    }


def _itl_histogram(results: Results) -> dict[str, float]:
    """Statistics of gaps that were counted in bins, where these are the gaps between the messages of all requests."""
    drafts = bool((results.engines["num_drafted_tokens"] > 0).any())
    if drafts or not results.window.whole_run or not results.itl["num_gaps"].any():
        return {}
    gaps = itl_percentiles(results.itl, results.requests)
    shares = {f"p{share}_itl_ms": gaps[f"p{share}_s"] * 1e3 for share in PERCENTILES}
    return {"mean_itl_ms": gaps["mean_s"] * 1e3, "median_itl_ms": gaps["p50_s"] * 1e3, **shares}


def _busiest_second(times_s: Sequence[FloatArray], start_s: FloatArray) -> float:
    """Messages in the fullest of the seconds counted from the first request on."""
    seconds = (np.concatenate(list(times_s)) - float(start_s.min())).astype(np.int64)
    return float(np.bincount(seconds).max())


def _most_at_once(start_s: FloatArray, end_s: FloatArray) -> int:
    """Requests in flight at the fullest moment; one that ends makes room for one that begins at the same time."""
    moments = np.concatenate([start_s, end_s])
    changes = np.concatenate([np.ones(len(start_s), np.int64), -np.ones(len(end_s), np.int64)])
    return int(np.cumsum(changes[np.lexsort((changes, moments))]).max())
