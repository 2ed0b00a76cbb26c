"""Lengths of reasoning that is cut short: laws and means."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.stages.early_exit import Reduction, ThoughtExit

UNIFORMS = (np.arange(20000) + 0.5) / 20000


def exits(**keys: float) -> ThoughtExit:
    return ThoughtExit.model_validate({"every_num_tokens": 100, "exit_probability": 0.2, "num_probe_tokens": 7, **keys})


def test_by_hand() -> None:
    # chance 1/2: with u below 1/2 the first checkpoint is the last, below 3/4 the second, below 7/8 the third
    kept, probe = exits(exit_probability=0.5).apply(np.array([250, 250, 250, 100]), np.array([0.4, 0.6, 0.8, 0.4]))
    assert kept.tolist() == [100, 200, 250, 100]
    # three checkpoints would be at 100, 200 and 300; the end of a hundred tokens is none
    assert probe.tolist() == [7, 14, 14, 0]


def test_never_and_always() -> None:
    tokens = np.array([50, 450])
    kept, probe = exits(exit_probability=0.0).apply(tokens, np.array([0.1, 0.1]))
    assert kept.tolist() == [50, 450]
    assert probe.tolist() == [0, 4 * 7]
    kept, probe = exits(exit_probability=1.0).apply(tokens, np.array([0.1, 0.9]))
    assert kept.tolist() == [50, 100]
    assert probe.tolist() == [0, 7]


def test_checkpoints_are_as_many_as_tries_until_one_succeeds() -> None:
    # of n = 9 checkpoints at most: (1 - (1 - q)^n) / q on average; the last stretch is short if none was the last
    kept, probe = exits().apply(np.full(len(UNIFORMS), 950), UNIFORMS)
    stays = 0.8**9
    assert probe.mean() / 7 == pytest.approx((1 - stays) / 0.2, rel=2e-3)
    assert (kept == 950).mean() == pytest.approx(stays, abs=1e-3)
    assert kept.mean() == pytest.approx(100 * ((1 - stays) / 0.2 - 9 * stays) + 950 * stays, rel=2e-3)


def test_never_longer_than_without() -> None:
    tokens = np.arange(1, 2000)
    kept, probe = exits().apply(tokens, np.resize(UNIFORMS, tokens.shape))
    assert ((kept >= 1) & (kept <= tokens)).all()
    assert (probe <= 7 * ((tokens - 1) // 100)).all()


def test_a_reduction_scales_and_cuts() -> None:
    tokens = np.array([1, 9, 10, 1000])
    assert Reduction(kept_frac=0.5).apply(tokens).tolist() == [1, 5, 5, 500]
    assert Reduction(max_num_tokens=8).apply(tokens).tolist() == [1, 8, 8, 8]
    assert Reduction(kept_frac=0.1, max_num_tokens=50).apply(tokens).tolist() == [1, 1, 1, 50]
    with pytest.raises(ValidationError, match="kept_frac"):
        Reduction(kept_frac=0.0)
