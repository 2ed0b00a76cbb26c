"""Recorded steps and decisions: complete, in order, and they change nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.sim.step_log import Decision, in_effect
from hermes_sim.state.arrays import ADMITTED, PREEMPTED, SCHEDULED
from tests.unit.sim.test_collect import CASES, frames, run

RECORDED = [case for case in CASES if case != "two replicas and retrieval"]


@pytest.mark.parametrize("case", CASES)
def test_recording_changes_nothing(case: str) -> None:
    plain, recorded = frames(case), frames(case, steps=True)
    for name, frame in plain.items():
        pd.testing.assert_frame_equal(frame, recorded[name], check_exact=True)


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_there_once_and_in_order(case: str) -> None:
    tables = frames(case, steps=True)
    steps, engines = tables["steps"], tables["engines"].set_index("engine")
    for name, rows in steps.groupby("engine", observed=True):
        assert list(rows["step"]) == list(range(int(engines.loc[name, "num_steps"])))
        assert rows["start_s"].is_monotonic_increasing
        assert rows["end_s"].is_monotonic_increasing
        assert (rows["end_s"] > rows["start_s"]).all()
        for resource in ("compute_s", "memory_s", "network_s", "host_s"):
            assert rows[resource].sum() == pytest.approx(engines.loc[name, resource], rel=1e-9, abs=1e-12)
        for column in ("num_drafted_tokens", "num_accepted_tokens", "num_preempted"):
            total = engines.loc[name, column.replace("num_preempted", "num_preemptions")]
            assert rows[column].sum() == total, column
        swapped = rows["num_swapped_in_blocks"].sum() + rows["num_swapped_out_blocks"].sum()
        assert swapped == engines.loc[name, "num_swapped_blocks"]


@pytest.mark.parametrize("case", RECORDED)
def test_decisions_add_up_to_their_steps(case: str) -> None:
    tables = frames(case, steps=True)
    steps, decisions = tables["steps"], tables["decisions"]
    steps = steps.set_index([steps["engine"].astype("str"), steps["step"]])
    named = decisions.assign(engine=decisions["engine"].astype("str"), kind=decisions["kind"].astype("str"))
    summed, counted = (
        named.pivot_table(index=["engine", "step"], columns="kind", values="amount", aggfunc=how, fill_value=0)
        for how in ("sum", "count")
    )
    if case != "layered":  # prompts count once, when they are through all layers
        scheduled = summed["scheduled"].reindex(steps.index, fill_value=0)
        np.testing.assert_array_equal(scheduled, steps["num_tokens"])
        np.testing.assert_array_equal(
            counted["scheduled"].reindex(steps.index, fill_value=0), steps["num_decode"] + steps["num_prefill"]
        )
    np.testing.assert_array_equal(counted["admitted"].reindex(steps.index, fill_value=0), steps["num_admitted"])
    np.testing.assert_array_equal(counted["finished"].reindex(steps.index, fill_value=0), steps["num_finished"])
    if "accepted" in summed:
        accepted = summed["accepted"].reindex(steps.index, fill_value=0)
        np.testing.assert_array_equal(accepted, steps["num_accepted_tokens"])
        assert (steps["num_accepted_tokens"] <= steps["num_drafted_tokens"]).all()


def test_every_request_finishes_once_with_its_tokens() -> None:
    tables = frames("samples", steps=True)
    finished = tables["decisions"].query("kind == 'finished'")
    requests = tables["requests"].query("num_output_tokens > 0")
    tokens = finished.groupby("request")["amount"].sum()
    assert not finished.duplicated(["request", "sample"]).any()
    longer = requests[requests["num_longest_sample_tokens"] > 1]
    # a sample of one token ends with the prompt and is never scheduled
    assert (tokens[longer["request"]].to_numpy() <= longer["num_output_tokens"].to_numpy()).all()
    assert set(finished["sample"]) == {0, 1, 2}


def test_without_recording_there_is_nothing() -> None:
    assert run("plain").steps is None
    assert run("plain").decisions is None


def test_tokens_of_a_victim_of_the_same_step_went_back() -> None:
    kept = in_effect([
        Decision(SCHEDULED, 1, 1), Decision(SCHEDULED, 2, 1), Decision(PREEMPTED, 2, 30), Decision(ADMITTED, 2, 16),
        Decision(SCHEDULED, 2, 15),
    ])  # fmt: skip
    assert kept == [
        Decision(SCHEDULED, 1, 1), Decision(PREEMPTED, 2, 30), Decision(ADMITTED, 2, 16), Decision(SCHEDULED, 2, 15),
    ]  # fmt: skip
