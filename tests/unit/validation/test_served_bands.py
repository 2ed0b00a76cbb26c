"""Bands of served latencies: made by one half of the kept-out set-ups, judged by the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import HermesError
from hermes_sim.replay.experiment import Comparison, Replays
from hermes_sim.validation.accuracy import summed_up
from hermes_sim.validation.served_bands import FEWEST_RUNS, coverage, fit_bands, makes_bands, ratios
from hermes_sim.validation.serving import score

MODELS = [f"model_{number}" for number in range(40)]
MAKERS = [name for name in MODELS if makes_bands({"model": name, "engine": "vllm_v1"})]
JUDGES = [name for name in MODELS if name not in MAKERS]


def report(*runs: tuple[str, float, str]) -> dict[str, Any]:
    """Of runs (model, measured over predicted, side) whose TTFT was predicted as one second."""
    comparisons = tuple(
        Comparison("a.csv", str(number), "ttft_mean_s", ratio, 1.0, {"model": model, "engine": "vllm_v1"}, side)  # type: ignore[arg-type]
        for number, (model, ratio, side) in enumerate(runs)
    )
    return summed_up("folder", "serving", None, score([("closed_loop", Replays(comparisons))])).as_dict()


def test_bands_hold_nine_in_ten_of_what_made_them_and_nothing_else_counts() -> None:
    spread = np.linspace(0.5, 1.5, 21)
    made = [(MAKERS[index % len(MAKERS)], float(ratio), "held_out") for index, ratio in enumerate(spread)]
    others = [(JUDGES[0], 7.0, "held_out"), (JUDGES[1], 1.0, "held_out"), (MAKERS[0], 9.0, "fitted")]
    kept_out = ratios(report(*made, *others))
    band = fit_bands(kept_out)["vllm"]["ttft"]
    assert (band.low_frac, band.high_frac, band.num_runs) == (pytest.approx(0.55), pytest.approx(1.45), 21)
    assert coverage(kept_out, {"vllm": {"ttft": band}}) == [
        "vllm ttft: 0.55 to 1.45 of 21 runs, 50% of 2 others inside"
    ]


def test_one_curve_over_the_load_is_on_one_side() -> None:
    setup = {"model": "llama_3_1_70b", "engine": "vllm"}
    assert len({makes_bands({**setup, "concurrency": str(load), "rate": str(load)}) for load in range(64)}) == 1
    assert {makes_bands({**setup, "tp": str(tp)}) for tp in range(64)} == {True, False}


def test_too_few_runs_make_no_band() -> None:
    assert fit_bands(ratios(report(*[(MAKERS[0], 1.0, "held_out")] * (FEWEST_RUNS - 1)))) == {}


def test_a_report_without_runs_is_refused() -> None:
    with pytest.raises(HermesError, match="no served runs"):
        ratios({"format": 1, "bars": []})


def test_the_report_holds_every_run_with_its_labels() -> None:
    (run,) = report(("llama_3_1_8b", 1.25, "fitted"))["serving"]["runs"]
    assert run["metrics"]["ttft_mean_s"][:2] == [1.25, 1.0]
    assert (run["side"], run["labels"]) == ("fitted", {"model": "llama_3_1_8b", "engine": "vllm_v1"})
