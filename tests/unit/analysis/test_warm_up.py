"""`warm_up: auto`: what is cut off a run, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim import Results, simulate
from hermes_sim.analysis.warm_up import INSIDE, WarmUp, find_warm_up, num_inside
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.measure import Margin, Measure
from tests import scenarios
from tests.unit.analysis.test_results import results_of

NO_VISITS = pd.DataFrame({"arrival_s": np.zeros(0), "start_s": np.zeros(0)})


def requests_of(ttft_s: np.ndarray, e2e_s: np.ndarray, spacing_s: float = 1.0) -> pd.DataFrame:
    arrival_s = np.arange(len(ttft_s)) * spacing_s
    return pd.DataFrame(
        {"arrival_s": arrival_s, "finish_s": arrival_s + e2e_s, "ttft_s": ttft_s, "e2e_s": e2e_s, "status": "finished"}
    )


def noise(num: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0.0, 0.2, num)


def test_the_series_that_settles_last_decides() -> None:
    slow_start = noise(1000)
    slow_start[:60] *= 8.0
    found = find_warm_up(requests_of(slow_start, 0.5 * noise(1000, 2)), NO_VISITS)
    assert found == WarmUp(60, 60.0, "TTFT", True)
    assert find_warm_up(requests_of(noise(1000), 0.1 * slow_start), NO_VISITS).decided_by == "E2E"


def test_filling_up_shows_in_the_number_inside() -> None:
    """Each stays for forty arrivals: the fortieth finds a full machine, though all are equally fast."""
    requests = requests_of(np.ones(1000), np.full(1000, 40.5))
    assert list(num_inside(requests)[[0, 10, 40, 41, 999]]) == [0, 10, 40, 40, 40]
    assert find_warm_up(requests, NO_VISITS) == WarmUp(40, 40.0, INSIDE, True)


def test_what_drifts_has_no_steady_state_and_few_requests_tell_nothing() -> None:
    drifting = np.exp(np.arange(1000) / 200.0)
    assert find_warm_up(requests_of(drifting, np.ones(1000)), NO_VISITS) == WarmUp(0, 0.0, "TTFT", False)
    assert find_warm_up(requests_of(noise(99), noise(99)), NO_VISITS).is_steady is None
    assert find_warm_up(requests_of(noise(1000), 0.1 * noise(1000)), NO_VISITS).is_steady


def test_rows_that_were_turned_away_keep_their_place() -> None:
    """The cut counts requests by arrival, finished or not."""
    slow_start = noise(1000)
    slow_start[:60] *= 8.0
    requests = requests_of(slow_start, 0.5 * noise(1000, 2))
    rejected = requests.iloc[[5, 6, 7, 8, 9]].assign(status="rejected", ttft_s=np.nan, e2e_s=np.nan, finish_s=np.nan)
    mixed = pd.concat([requests, rejected])
    assert find_warm_up(mixed, NO_VISITS).num_requests == 65
    assert find_warm_up(mixed.sample(frac=1.0, random_state=1), NO_VISITS).num_requests == 65


def test_auto_is_a_word_of_the_file() -> None:
    measure = Measure.model_validate({"warm_up": "auto", "cool_down": "5 %"})
    assert measure.warm_up == Margin(is_automatic=True)
    assert measure.model_dump(mode="json") == {"warm_up": "auto", "cool_down": "0.05"}
    with pytest.raises(ValueError, match="is not a time"):
        Measure.model_validate({"cool_down": "auto"})
    with pytest.raises(ValueError, match="; or auto"):
        Measure.model_validate({"warm_up": "automatic"})


@pytest.fixture(scope="module")
def box() -> Results:
    """A single server at 90%: it takes long to fill."""
    cluster = scenarios.cluster(scenarios.llm(), scenarios.workers(["embed", "retrieve"]))
    workload = scenarios.workload(*scenarios.RAG, measure={"warm_up": "auto"})
    workload["traffic"]["num_requests"] = 400
    return simulate(cluster, workload)


def test_a_run_measures_what_is_behind_the_cut(box: Results, tmp_path: Path) -> None:
    found = box.warm_up
    assert found is not None
    assert list(box.requests["measured"]) == [False] * found.num_requests + [True] * (400 - found.num_requests)
    assert box.summary["run"]["warm_up"]["num_requests"] == found.num_requests
    assert box.summary["requests"]["num_measured"] == 400 - found.num_requests
    again = Results.load(box.save(tmp_path / "run"))
    assert again.warm_up == found
    assert again.summary == box.summary


def test_a_saturated_run_says_that_it_has_no_steady_state(tables: RunTables) -> None:
    results = results_of(tables, measure={"warm_up": "auto"})
    assert results.warm_up == WarmUp(0, 0.0, None, None), "five requests"
    assert results.window.whole_run
    kinds = [warning["kind"] for warning in results.summary["warnings"]]
    assert "warm_up_unknown" in kinds
    assert "warm_up_included" not in kinds
    drifting = replace(results)
    object.__setattr__(drifting, "warm_up", WarmUp(0, 0.0, "TTFT", False))
    texts = [warning["text"] for warning in drifting.summary["warnings"]]
    assert any(text.startswith("no steady state: TTFT had not settled") for text in texts)
