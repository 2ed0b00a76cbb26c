"""What is said about engines is true of them, and not said otherwise."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from hermes_sim.analysis.engine_findings import busy_front_end, engine_findings, kv_full, slower_by_drafts


def engines(**columns: float) -> pd.DataFrame:
    values = {
        "engine": "llm[0]", "busy_s": 10.0, "mean_batch": 30.0, "acceptance_frac": math.nan,
        "speculation_speedup": math.nan, "detokenizer_utilization_frac": math.nan, **columns,
    }  # fmt: skip
    return pd.DataFrame([values])


def timeline(kv: list[float], waiting: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"engine": "llm[0]", "busy_s": 10.0 / len(kv), "mean_kv_used_frac": kv, "num_waiting": waiting})


@pytest.mark.parametrize(
    ("kv", "waiting", "said"),
    [
        ([0.99, 0.5, 0.5, 0.5], [5.0, 5.0, 5.0, 5.0], True),
        ([0.99, 0.5, 0.5, 0.5], [0.0, 5.0, 5.0, 5.0], False),  # full, but nobody waited then
        ([0.9, 0.9, 0.9, 0.9], [5.0, 5.0, 5.0, 5.0], False),
        ([0.99, *[0.5] * 9], [5.0] * 10, False),  # a tenth of the time is not more than a tenth
    ],
)
def test_kv_is_full_if_requests_waited_for_it(kv: list[float], waiting: list[float], said: bool) -> None:
    found = list(kv_full(engines(), timeline(kv, waiting)))
    assert bool(found) == said
    if said:
        assert found[0].text.startswith(
            "KV full: for 25% of its busy time llm[0] had less than 5% of its KV blocks free"
        )


def test_an_idle_engine_says_nothing() -> None:
    assert list(kv_full(engines(busy_s=0.0), timeline([0.99], [5.0]))) == []


def test_drafts_in_vain() -> None:
    (found,) = slower_by_drafts(engines(speculation_speedup=0.8, acceptance_frac=0.3))
    assert found.kind == "speculation_slower"
    assert "slows llm[0] down to 0.800 of the speed without; 30% of the drafts are right" in found.text
    assert list(slower_by_drafts(engines(speculation_speedup=1.3, acceptance_frac=0.3))) == []
    assert list(slower_by_drafts(engines())) == []


def test_a_busy_front_end_is_optimistic() -> None:
    (found,) = busy_front_end(engines(detokenizer_utilization_frac=0.9))
    assert "the detokenisers of llm[0] are busy 90% of the time" in found.text
    assert list(busy_front_end(engines(detokenizer_utilization_frac=0.8))) == []


def test_all_together() -> None:
    found = engine_findings(
        engines(speculation_speedup=0.8, acceptance_frac=0.3, detokenizer_utilization_frac=0.9),
        timeline([0.99], [5.0]),
    )
    assert [one.kind for one in found] == ["kv_full", "speculation_slower", "front_end_busy"]
