"""The same request alone on an empty machine: the reference of SLOs that are multiples of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.scenario.availability import Availability
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.workload.requests import RequestTable, request_table

MAX_NUM_SAMPLES = 2000
"""Requests simulated alone; more are matched to the nearest of them."""

COLUMNS = ["pipeline", "num_prompt_tokens", "num_output_tokens", "ttft_s", "tpot_s", "e2e_s"]

SPACING_FACTOR = 10.0
"""Lone requests arrive so many times the longest E2E of the loaded run apart, which is longer than theirs."""

MIN_SPACING_S = 1.0


def reference_s(requests: pd.DataFrame, unloaded: pd.DataFrame, metric: str) -> FloatArray:
    """Unloaded latency of each request: that of the nearest lone request of its pipeline.

    unloaded: one row per lone request (COLUMNS). Near is measured on the logarithms of prompt and output tokens; an
    equal request is at distance zero. NaN where the metric does not exist or its pipeline has no lone request.
    """
    from scipy.spatial import cKDTree

    result = np.full(len(requests), np.nan)
    lone = unloaded[unloaded[f"{metric}_s"].notna()]
    pipelines = requests["pipeline"].astype("str").to_numpy()
    for pipeline in np.unique(pipelines):
        candidates = lone[lone["pipeline"].astype("str") == pipeline]
        if len(candidates) == 0:
            continue
        chosen = np.flatnonzero(pipelines == pipeline)
        _, nearest = cKDTree(_lengths(candidates)).query(_lengths(requests.iloc[chosen]))
        result[chosen] = floats(candidates, f"{metric}_s")[nearest]
    return result


def _lengths(requests: pd.DataFrame) -> FloatArray:
    """[num_requests, 2] logarithms of the lengths."""
    return np.log1p(np.column_stack([floats(requests, "num_prompt_tokens"), floats(requests, "num_output_tokens")]))


def lone_requests(requests: RequestTable, spacing_s: float) -> RequestTable:
    """At most MAX_NUM_SAMPLES of the requests, so far apart that they never meet, with nothing in common.

    All of them keep their rows, so that they draw the same pipeline as in the loaded run; of more, every n-th in order
    of length is taken, always the same ones.
    """
    num = min(requests.num_requests, MAX_NUM_SAMPLES)
    by_length = np.lexsort((requests.num_output_tokens, requests.num_prompt_tokens))
    rows = np.sort(by_length[np.linspace(0, requests.num_requests - 1, num).round().astype(np.int64)])
    return request_table(
        np.arange(num) * spacing_s,
        requests.num_prompt_tokens[rows],
        requests.num_output_tokens[rows],
        pipeline=None if requests.pipeline is None else requests.pipeline[rows],
        pipeline_names=requests.pipeline_names,
    )


def lone_scenario(scenario: Scenario) -> Scenario:
    """The scenario without prefix caching (a lone request finds nothing that an earlier one has left), with all that
    it has in place all the time."""
    engines = tuple(
        engine.model_copy(
            update={"kv_cache": engine.kv_cache.model_copy(update={"prefix_caching": False}), "autoscaling": None}
        )
        for engine in scenario.cluster.engines
    )
    alone = {"engines": engines, "availability": Availability(), "admission": None, "power_caps": ()}
    patient = tuple(one.model_copy(update={"patience": None}) for one in scenario.workload.classes)
    return scenario.model_copy(
        update={
            "cluster": scenario.cluster.model_copy(update=alone),
            "workload": scenario.workload.model_copy(update={"patience": None, "classes": patient}),
        }
    )
