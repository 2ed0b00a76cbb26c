"""The traffic block: what may be combined, and what it gives."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hermes_sim.workload.traffic import Traffic
from tests.unit.workload.laws import FIXED, requests_of

POISSON = {"kind": "poisson", "rate": "4 /s"}
EMPIRICAL = {"kind": "empirical", "table": "azure2023_conv"}


@pytest.mark.parametrize(
    ("traffic", "reason"),
    [
        ({}, "needs one of trace, arrivals and closed_loop"),
        ({"arrivals": POISSON}, "arrivals needs lengths"),
        ({"closed_loop": {"concurrency": 1}}, "closed_loop needs lengths"),
        ({"arrivals": POISSON, "lengths": FIXED}, "num_requests or duration"),
        ({"arrivals": POISSON, "closed_loop": {"concurrency": 1}, "lengths": FIXED}, "needs one of"),
        ({"trace": {"format": "azure"}, "lengths": FIXED}, "remove lengths, or trace"),
        ({"trace": {"format": "azure"}, "arrivals": POISSON, "num_requests": 3}, "remove arrivals and num_requests"),
        ({"closed_loop": {"concurrency": 1}, "lengths": FIXED}, "closed_loop needs num_requests"),
        ({"closed_loop": {"concurrency": 1}, "lengths": FIXED, "num_requests": 1, "duration": "1 s"}, "no duration"),
        ({"closed_loop": {"concurrency": 1}, "lengths": FIXED, "num_requests": 1, "sessions": {}}, "no sessions"),
        ({"closed_loop": {"concurrency": 0}, "lengths": FIXED, "num_requests": 1}, "concurrency"),
        ({"arrivals": POISSON, "lengths": FIXED, "num_requests": -1}, "num_requests"),
        (
            {"arrivals": POISSON, "lengths": FIXED, "num_requests": 1}
            | {"sessions": {"turns": "fixed", "mean_num_turns": 1.5}},
            "whole mean_num_turns",
        ),
    ],
)  # fmt: skip
def test_senseless_traffic_is_refused(traffic: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Traffic.model_validate(traffic)


def test_a_description_survives_being_written() -> None:
    for traffic in (
        {"arrivals": POISSON, "lengths": EMPIRICAL, "num_requests": 3},
        {"arrivals": {"kind": "replay", "trace": {"format": "azure", "path": "x"}}, "lengths": FIXED},
        {"trace": {"format": "sharegpt", "path": "x", "arrivals": POISSON, "window": ["1 s", "2 s"]}},
        {"closed_loop": {"concurrency": 2, "think_time": "50 ms"}, "lengths": FIXED, "num_requests": 3},
    ):
        description = Traffic.model_validate(traffic)
        written = json.loads(description.model_dump_json(by_alias=True, exclude_none=True))
        assert Traffic.model_validate(written) == description


def test_the_examples_of_the_page_are_valid() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "traces.md").read_text(encoding="utf-8")
    examples = [line for line in page.splitlines() if line.startswith("traffic: {")]
    assert len(examples) == 3
    for example in examples:
        Traffic.model_validate(yaml.safe_load(example)["traffic"])


def test_describe_is_for_people() -> None:
    traffic = Traffic.model_validate({"arrivals": POISSON, "lengths": EMPIRICAL, "num_requests": 2000})
    assert traffic.describe() == "2,000 requests, Poisson 4/s, lengths of azure2023_conv"
    assert traffic.model_copy(update={"num_requests": 1}).describe().startswith("1 request, ")
    trace = Traffic.model_validate({"trace": {"format": "azure", "path": "a/b.csv"}})
    assert trace.describe() == "azure trace b.csv"


def test_a_changed_rate_changes_no_length() -> None:
    slow = requests_of(arrivals=POISSON, lengths=EMPIRICAL, num_requests=500)
    fast = requests_of(arrivals={"kind": "gamma", "rate": "40 /s", "cv": 2}, lengths=EMPIRICAL, num_requests=500)
    assert np.array_equal(slow.num_prompt_tokens, fast.num_prompt_tokens)
    assert np.array_equal(slow.num_output_tokens, fast.num_output_tokens)
    assert not np.array_equal(slow.arrival_s, fast.arrival_s)
    shorter = requests_of(arrivals=POISSON, lengths=EMPIRICAL, duration="10 s")
    assert np.array_equal(shorter.num_prompt_tokens, slow.num_prompt_tokens[: shorter.num_requests])


def test_seeds_give_other_requests() -> None:
    one, two = (requests_of(seed, arrivals=POISSON, lengths=EMPIRICAL, num_requests=50) for seed in (1, 2))
    assert not np.array_equal(one.num_prompt_tokens, two.num_prompt_tokens)
    assert not np.array_equal(one.arrival_s, two.arrival_s)


def test_no_requests_and_no_output_tokens() -> None:
    assert requests_of(arrivals=POISSON, lengths=FIXED, num_requests=0).num_requests == 0
    prefill_only = requests_of(arrivals=POISSON, lengths=FIXED | {"num_output_tokens": 0}, num_requests=3)
    assert prefill_only.num_output_tokens.tolist() == [0, 0, 0]
    no_users = {"closed_loop": {"concurrency": 5}, "lengths": FIXED, "num_requests": 0}
    assert requests_of(**no_users).num_requests == 0


def test_closed_loop() -> None:
    table = requests_of(
        closed_loop={"concurrency": 4, "think_time": "2 s", "think_time_cv": 1, "ramp_up": "8 s"},
        lengths=FIXED,
        num_requests=20_000,
    )
    assert table.closed_loop is not None
    assert table.closed_loop.concurrency == 4
    assert table.closed_loop.think_time_s[:4].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert table.closed_loop.think_time_s[4:].mean() == pytest.approx(2.0, rel=0.03)
    assert table.closed_loop.think_time_s[4:].std() == pytest.approx(2.0, rel=0.05)
    assert np.isnan(table.arrival_s).all()
    even = requests_of(closed_loop={"concurrency": 4, "think_time": "2 s"}, lengths=FIXED, num_requests=6)
    assert even.closed_loop is not None
    assert even.closed_loop.think_time_s.tolist() == [0.0] * 4 + [2.0] * 2


def test_shared_prefix() -> None:
    plain = requests_of(arrivals=POISSON, lengths=FIXED, num_requests=20_000)
    table = requests_of(
        arrivals=POISSON, lengths=FIXED, num_requests=20_000, prefix={"share": 0.25, "groups": 4, "tokens": 64}
    )
    shares = table.prefix_group >= 0
    assert shares.mean() == pytest.approx(0.25, abs=0.01)
    assert np.bincount(table.prefix_group[shares]) / shares.sum() == pytest.approx([0.25] * 4, abs=0.02)
    assert (table.prefix_tokens == np.where(shares, 64, 0)).all()
    assert np.array_equal(table.num_prompt_tokens, plain.num_prompt_tokens + table.prefix_tokens)
    assert np.array_equal(table.arrival_s, plain.arrival_s)


def test_sessions_carry_their_history() -> None:
    table = requests_of(
        arrivals={"kind": "constant", "rate": "1 /s"},
        lengths=FIXED,
        num_requests=7,
        sessions={"turns": "fixed", "mean_num_turns": 3, "think_time": "5 s", "think_time_cv": 0},
        prefix={"tokens": 11},
    )
    assert table.num_prompt_tokens.tolist() == [111, 221, 331, 111, 221, 331, 111]
    assert table.session.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert table.previous.tolist() == [-1, 0, 1, -1, 3, 4, -1]
    assert np.array_equal(table.arrival_s, [0, np.nan, np.nan, 1, np.nan, np.nan, 2], equal_nan=True)
    assert table.think_s.tolist() == [0.0, 5.0, 5.0, 0.0, 5.0, 5.0, 0.0]


def test_turns_are_geometric_and_a_session_shares_one_system_prompt() -> None:
    table = requests_of(
        arrivals=POISSON,
        lengths=FIXED,
        num_requests=50_000,
        sessions={"mean_num_turns": 4},
        prefix={"groups": 9, "tokens": 5},
    )
    num_turns = np.bincount(table.session)
    assert num_turns.mean() == pytest.approx(4.0, rel=0.03)
    assert (num_turns == 1).mean() == pytest.approx(0.25, abs=0.02)
    follows = table.previous >= 0
    assert (table.prefix_group[follows] == table.prefix_group[table.previous[follows]]).all()
    assert table.think_s[follows].mean() == pytest.approx(30.0, rel=0.03)


def test_sessions_end_before_they_are_too_long_and_others_take_their_place() -> None:
    table = requests_of(
        arrivals=POISSON, lengths=FIXED, num_requests=1000,
        sessions={"mean_num_turns": 10, "max_num_prompt_tokens": 320},
    )  # fmt: skip
    assert table.num_requests == 1000
    assert table.num_prompt_tokens.max() == 320
    assert np.bincount(table.session).max() == 3
    none = requests_of(arrivals=POISSON, lengths=FIXED, num_requests=10, sessions={"max_num_prompt_tokens": 50})
    assert none.num_requests == 0
    assert none.notes == ("only 0 of 10 requests ever arrive",)


def test_replay_takes_the_times_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n0,1,1\n4,1,1\n8,1,1\n")
    arrivals = {"kind": "replay", "trace": {"format": "table", "path": str(path), "time_scale": 0.5}}
    assert requests_of(arrivals=arrivals, lengths=FIXED).arrival_s.tolist() == [0.0, 2.0, 4.0]
    assert requests_of(arrivals=arrivals, lengths=FIXED, num_requests=2).arrival_s.tolist() == [0.0, 2.0]
    assert requests_of(arrivals=arrivals, lengths=FIXED, duration="3 s").arrival_s.tolist() == [0.0, 2.0]


def test_relative_paths_are_resolved_by_the_caller(tmp_path: Path) -> None:
    from hermes_sim.workload.generate import generate_requests

    (tmp_path / "own.csv").write_text("probability,prompt,output_1\n0,10,5\n1,10,5\n")
    traffic = Traffic.model_validate(
        {"arrivals": POISSON, "lengths": {"kind": "empirical", "path": "own.csv"}, "num_requests": 2}
    )
    table = generate_requests(traffic, 1, resolve_path=lambda written: tmp_path / written)
    assert table.num_prompt_tokens.tolist() == [10, 10]


def test_a_million_requests_in_two_seconds() -> None:
    took_s = []
    for _ in range(2):
        started_s = time.process_time()
        table = requests_of(
            arrivals=POISSON, lengths=EMPIRICAL, num_requests=1_000_000, prefix={"tokens": 10, "share": 0.5}
        )
        took_s.append(time.process_time() - started_s)
        assert table.num_requests == 1_000_000
    assert min(took_s) < 2.0


@settings(max_examples=40, deadline=None)
@given(
    rate=st.one_of(st.just(0.0), st.floats(1e-9, 50.0)),
    mean_num_turns=st.floats(1.0, 6.0),
    longest=st.one_of(st.none(), st.integers(1, 2000)),
    num_requests=st.integers(0, 60),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63),
)
def test_any_synthetic_traffic_keeps_the_laws(
    rate: float, mean_num_turns: float, longest: int | None, num_requests: int, share: float, seed: int
) -> None:
    """RequestTable checks the laws itself; what is asked for is never exceeded."""
    table = requests_of(
        seed,
        arrivals={"kind": "poisson", "rate": f"{rate!r} /s"},
        lengths={"kind": "gamma", "prompt": {"mean": 60, "min": 0}, "output": {"mean": 20, "min": 0}},
        sessions={"mean_num_turns": mean_num_turns, "max_num_prompt_tokens": longest},
        prefix={"share": share, "tokens": 3},
        num_requests=num_requests,
    )
    assert table.num_requests <= num_requests
    assert (table.previous[np.isnan(table.arrival_s)] >= 0).all()
