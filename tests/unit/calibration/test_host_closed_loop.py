"""Host terms from closed-loop runs: terms that are known come out again, and only fitted models decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hermes_sim.calibration.host_closed_loop import Measured, fit_engine


def run(tokens: float, step_s: float, ttft_s: float, *, is_fitted: bool = True, wrong: float = 1.0) -> Measured:
    return Measured(
        preset="an_engine",
        is_fitted=is_fitted,
        num_prompt_tokens=tokens,
        ttft_s=wrong * (ttft_s + 0.030 + 4e-6 * tokens),
        tpot_s=wrong * (step_s + 5e-4),
        replayed_ttft_s=ttft_s,
        replayed_tpot_s=step_s,
    )


RUNS = [run(tokens, step_s, 20 * step_s) for tokens in (900.0, 7400.0) for step_s in (0.003, 0.01, 0.02)]


def test_known_terms_come_out_again() -> None:
    terms = fit_engine("an_engine", RUNS).terms
    assert terms.between_steps_s == pytest.approx(5e-4, rel=1e-3)
    assert terms.front_end_s == pytest.approx(0.030, rel=1e-3)
    assert terms.per_token_s == pytest.approx(4e-6, rel=1e-2)


def test_servers_that_stalled_for_seconds_count_for_nothing() -> None:
    stalled = [replace(one, ttft_s=one.ttft_s + 7.0) for one in RUNS[::3]]
    terms = fit_engine("an_engine", [*RUNS, *stalled]).terms
    assert terms.front_end_s == pytest.approx(0.030, rel=0.05)
    assert terms.per_token_s == pytest.approx(4e-6, rel=0.05)


def test_models_that_are_kept_out_decide_nothing_but_are_reported() -> None:
    kept_out = [run(900.0, 0.01, 0.2, is_fitted=False, wrong=3.0)] * 50
    fit = fit_engine("an_engine", [*RUNS, *kept_out])
    assert fit.terms.front_end_s == pytest.approx(0.030, rel=1e-3)
    assert fit.tpot["fitted"].mean_frac < 1e-3
    assert fit.tpot["held_out"].bias_frac == pytest.approx(-2 / 3, rel=1e-3)


def test_terms_are_never_negative() -> None:
    faster = [run(tokens, 0.01, 0.2, wrong=0.5) for tokens in (900.0, 7400.0)]
    terms = fit_engine("an_engine", faster).terms
    assert min(terms.between_steps_s, terms.front_end_s, terms.per_token_s) >= 0.0
    assert terms.between_steps_s == pytest.approx(0.0, abs=1e-6)
