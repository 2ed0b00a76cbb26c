"""How far each request can be believed: the weakest kind of step time that matters to it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.trust import provenance_fracs, weakest_provenances

OPERATORS = pd.DataFrame(
    [
        ("llm[0]", "prefill", "qkv", 0.5, "interpolated"),
        ("llm[0]", "prefill", "norm", 0.5, "analytic"),
        ("llm[0]", "decode", "qkv", 1.0, "interpolated"),
        ("cpu[0]", "retrieve", "scan", 1.0, "estimate"),
    ],
    columns=["engine", "stage", "operator", "time_s", "provenance"],
)


def visits(*rows: tuple[int, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["request", "engine", "kind", "service_s"])


def test_the_weakest_kind_decides_whatever_replica_served() -> None:
    served = visits((0, "llm[3]", "decode", 2.0), (1, "llm[1]", "prefill", 1.0), (1, "llm[1]", "decode", 1.0))
    assert list(weakest_provenances(OPERATORS, served, 2)) == ["interpolated", "analytic"]


@pytest.mark.parametrize(("service_s", "expected"), [(0.009, "interpolated"), (0.011, "estimate")])
def test_less_than_a_hundredth_does_not_count(service_s: float, expected: str) -> None:
    served = visits((0, "llm[0]", "decode", 1.0 - service_s), (0, "cpu[0]", "retrieve", service_s))
    assert list(weakest_provenances(OPERATORS, served, 1)) == [expected]


def test_requests_that_nothing_served_have_none() -> None:
    served = visits((1, "llm[0]", "decode", 1.0), (2, "llm[0]", "decode", np.nan))
    assert list(weakest_provenances(OPERATORS, served, 3).isna()) == [True, False, True]


def test_one_request_has_the_kinds_of_the_whole_run() -> None:
    served = visits((0, "llm[0]", "prefill", 3.0), (0, "llm[0]", "decode", 1.0))
    assert provenance_fracs(OPERATORS, served) == pytest.approx(
        {"measured": 0.0, "interpolated": 0.625, "analytic": 0.375, "estimate": 0.0, "unstated": 0.0}
    )
