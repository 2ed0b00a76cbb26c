"""SLOs: per request, and at the percentile they name."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.objectives import judge, meets_every_objective, needs_unloaded, objectives_of
from hermes_sim.analysis.unloaded import COLUMNS, MAX_NUM_SAMPLES, lone_requests, reference_s
from hermes_sim.scenario.slo import LatencyLimit, Slo
from hermes_sim.workload.requests import RequestTable, request_table

Frames = dict[str, pd.DataFrame]


def slo(**limits: dict[str, str]) -> Slo:
    return Slo.model_validate(
        {name: {at: LatencyLimit.parse(text) for at, text in limit.items()} for name, limit in limits.items()}
    )


@pytest.fixture
def unloaded() -> pd.DataFrame:
    rows = [("rag", 100, 5, 0.5, 0.25, 1.5), ("rag", 200, 1, 1.0, np.nan, 1.0), ("rag", 50, 0, np.nan, np.nan, 0.5)]
    return pd.DataFrame(rows, columns=COLUMNS)


def met(frames: Frames, objectives: Slo, unloaded: pd.DataFrame | None = None) -> list[bool]:
    return list(meets_every_objective(frames["requests"], objectives_of([(None, objectives)]), unloaded))


def test_a_request_meets_the_slo_by_every_latency_it_has(frames: Frames) -> None:
    # Request 1 has no TPOT, request 2 no first token, request 3 was rejected.
    assert met(frames, slo(ttft={"p99": "2 s"}, tpot={"p99": "1 s"})) == [True, True, True, False, False]
    assert met(frames, slo(tpot={"p99": "0.4 s"})) == [False, True, True, False, False]
    assert met(frames, slo(e2e={"p50": "2 s"})) == [False, True, True, False, False]
    assert met(frames, slo()) == [True, True, True, False, True]


def test_of_several_percentiles_a_request_keeps_the_loosest(frames: Frames) -> None:
    assert met(frames, slo(ttft={"p50": "1 s", "p99": "3 s"})) == [True, True, True, False, False]


def test_multiples_of_the_unloaded_request(frames: Frames, unloaded: pd.DataFrame) -> None:
    # Unloaded TTFT 0.5, 1, -, -, 0.5 (request 4 is nearest to the first lone one): ratios 2, 2, -, -, 8.
    objectives = slo(ttft={"p99": "2 x"})
    assert needs_unloaded(objectives_of([(None, objectives)]))
    assert met(frames, objectives, unloaded) == [True, True, True, False, False]
    finished = frames["requests"].iloc[[0, 1, 2, 4]]
    verdict = judge(objectives_of([(None, slo(ttft={"p50": "6 x"}))])[0], finished, frames["itl"], unloaded)
    assert verdict.observed == 2.0
    assert verdict.met
    assert verdict.attained_frac == pytest.approx(2 / 3)


def test_a_failed_request_is_infinitely_late(frames: Frames) -> None:
    objectives = objectives_of([(None, slo(ttft={"p50": "3 s", "p99": "100 s"}))])
    at_p50, at_p99 = (judge(one, frames["requests"], frames["itl"], None) for one in objectives)
    assert (at_p50.observed, at_p50.met) == (3.0, True)  # of 1, 2, 4, inf
    assert (at_p99.observed, at_p99.met) == (math.inf, False)
    assert at_p50.attained_frac == 0.5


def test_excess_is_relative_to_the_bound(frames: Frames) -> None:
    (objective,) = objectives_of([(None, slo(e2e={"p50": "2 s"}))])
    verdict = judge(objective, frames["requests"].iloc[[0, 1, 2, 4]], frames["itl"], None)
    assert verdict.observed == 2.5
    assert verdict.excess_frac == pytest.approx(0.25)


def test_itl_is_judged_over_gaps(frames: Frames, unloaded: pd.DataFrame) -> None:
    p50, mean, multiple = objectives_of([(None, slo(itl={"p50": "0.6 s", "mean": "0.7 s", "p90": "4 x"}))])
    requests, itl = frames["requests"], frames["itl"]
    assert judge(p50, requests, itl, None).observed == 0.625
    assert judge(p50, requests, itl, None).attained_frac == pytest.approx(4 * 0.7 / 6)
    assert judge(mean, requests, itl, None).observed == pytest.approx(4 / 6)
    # p90 = 0.75 + 0.7 x 0.5 = 1.1 s, over the unloaded TPOT of 0.25 s.
    assert judge(multiple, requests, itl, unloaded).observed == pytest.approx(4.4)


def test_a_latency_that_nobody_has_is_neither_met_nor_missed(frames: Frames) -> None:
    (objective,) = objectives_of([(None, slo(tpot={"p99": "1 s"}))])
    assert judge(objective, frames["requests"].iloc[[1, 2]], frames["itl"], None).met is None


def test_multiples_need_the_reference(frames: Frames) -> None:
    with pytest.raises(ValueError, match="needs the unloaded latencies"):
        met(frames, slo(ttft={"p99": "2 x"}))


def test_the_nearest_lone_request_of_the_same_pipeline(unloaded: pd.DataFrame) -> None:
    other = pd.DataFrame([("llm", 100, 5, 9.0, 9.0, 9.0)], columns=COLUMNS)
    requests = pd.DataFrame(
        [("rag", 110, 5), ("llm", 1, 1), ("rag", 190, 1), ("new", 1, 1)],
        columns=["pipeline", "num_prompt_tokens", "num_output_tokens"],
    )
    reference = reference_s(requests, pd.concat([unloaded, other]), "ttft")
    np.testing.assert_array_equal(reference, [0.5, 9.0, 1.0, np.nan])


def make_requests(num: int) -> RequestTable:
    column = np.arange(num, dtype=np.int64)
    return request_table(
        np.zeros(num), column[::-1] + 1, column % 7, session=column, previous=column - 1, think_s=np.ones(num),
        prefix_group=column, prefix_tokens=np.ones(num), hash_offsets=np.arange(num + 1), hash_ids=column,
    )  # fmt: skip


@pytest.mark.parametrize("num", [0, 1, 17, MAX_NUM_SAMPLES + 500])
def test_lone_requests_share_nothing(num: int) -> None:
    requests = make_requests(num)
    alone = lone_requests(requests, spacing_s=100.0)
    assert alone.num_requests == min(num, MAX_NUM_SAMPLES)
    assert (np.diff(alone.arrival_s) == 100.0).all()
    assert (alone.session == -1).all()
    assert (alone.previous == -1).all()
    assert len(alone.hash_ids) == 0
    if num <= MAX_NUM_SAMPLES:
        np.testing.assert_array_equal(alone.num_prompt_tokens, requests.num_prompt_tokens)
    else:
        assert {alone.num_prompt_tokens.min(), alone.num_prompt_tokens.max()} == {1, num}
