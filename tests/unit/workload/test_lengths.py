"""Laws of lengths: marginals, correlation, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.core.rng import stream
from hermes_sim.workload.lengths import LENGTHS
from hermes_sim.workload.lengths.derive import rank_correlation
from hermes_sim.workload.requests import IntArray

NUM = 100_000
LAWS: dict[str, dict[str, Any]] = {
    "fixed": {"num_prompt_tokens": 512, "num_output_tokens": 0},
    "uniform": {"num_prompt_tokens": 1024, "num_output_tokens": 101, "range_ratio": 0.8},
    "lognormal": {"prompt": {"mean": 1000, "cv": 1.2}, "output": {"mean": 200}, "rank_correlation": 0.4},
    "gamma": {"prompt": {"mean": 1000, "cv": 0.5}, "output": {"mean": 200, "cv": 2}, "rank_correlation": -0.6},
    "empirical": {"table": "azure2023_conv"},
}


def sample(name: str, num: int = NUM, **changes: Any) -> tuple[IntArray, IntArray]:
    law = LENGTHS[name].model_validate({"kind": name, **LAWS[name], **changes})
    return law.sample(stream(1, "lengths"), num, Path)


@pytest.mark.parametrize("name", LENGTHS)
def test_conformance(name: str) -> None:
    """Whole, non-negative, the same again; more requests start with the same lengths; none are none."""
    prompt, output = sample(name)
    assert prompt.dtype == output.dtype == np.int64
    assert len(prompt) == len(output) == NUM
    assert min(prompt.min(), output.min()) >= 0
    fewer = sample(name, 50)
    assert np.array_equal(fewer[0], prompt[:50])
    assert np.array_equal(fewer[1], output[:50])
    assert len(sample(name, 0)[0]) == 0


def test_fixed() -> None:
    prompt, output = sample("fixed", 3)
    assert prompt.tolist() == [512] * 3
    assert output.tolist() == [0] * 3


def test_uniform_range_is_inclusive_and_flat() -> None:
    prompt, output = sample("uniform")
    assert (prompt.min(), prompt.max()) == (820, 1024)
    assert (output.min(), output.max()) == (81, 101)
    assert np.bincount(output)[81:] / NUM == pytest.approx(1 / 21, rel=0.1)
    assert rank_correlation(prompt, output) == pytest.approx(0.0, abs=0.02)
    assert set(sample("uniform", range_ratio=1)[0]) == {1024}


@pytest.mark.parametrize(("name", "correlation"), [("lognormal", 0.4), ("gamma", -0.6)])
def test_copula_marginals_and_rank_correlation(name: str, correlation: float) -> None:
    for tokens, law in zip(sample(name), (LAWS[name]["prompt"], LAWS[name]["output"]), strict=True):
        cv = law.get("cv", 1.0)
        assert tokens.mean() == pytest.approx(law["mean"], rel=0.03)
        assert tokens.std() / tokens.mean() == pytest.approx(cv, rel=0.05)
    assert rank_correlation(*sample(name)) == pytest.approx(correlation, abs=0.02)


def test_limits_and_no_spread() -> None:
    prompt, output = sample("gamma", prompt={"mean": 50, "cv": 2, "min": 0, "max": 80}, output={"mean": 7.6, "cv": 0})
    assert prompt.min() == 0
    assert prompt.max() == 80
    assert set(output) == {8}


def test_empirical_limits_cut() -> None:
    whole, cut = sample("empirical"), sample("empirical", max_num_prompt_tokens=1000, max_num_output_tokens=100)
    assert np.array_equal(cut[0], np.minimum(whole[0], 1000))
    assert np.array_equal(cut[1], np.minimum(whole[1], 100))


@pytest.mark.parametrize(
    ("law", "reason"),
    [
        ({"kind": "empirical", "table": "azure2023_con"}, "Did you mean 'azure2023_conv'"),
        ({"kind": "empirical"}, "either table"),
        ({"kind": "empirical", "table": "sharegpt", "path": "x.csv"}, "either table"),
        ({"kind": "lognormal", "prompt": {"mean": 0}, "output": {"mean": 1}}, "mean"),
        ({"kind": "lognormal", "prompt": {"mean": 1, "min": 9, "max": 3}, "output": {"mean": 1}}, "exceeds max"),
        ({"kind": "uniform", "num_prompt_tokens": 1, "num_output_tokens": 1, "range_ratio": 1.5}, "range_ratio"),
    ],
)
def test_senseless_laws_are_refused(law: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        LENGTHS[law["kind"]].model_validate(law)
