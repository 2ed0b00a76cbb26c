"""Where TTFT goes: parts by hand, and the law that they add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.critical_path import ttft_parts
from hermes_sim.analysis.frames import data_frame
from hermes_sim.core.tables import VISITS


def visit(kind: str, arrival_s: float, finish_s: float, service_s: float, transfer_s: float = 0.0) -> dict[str, object]:
    row: dict[str, object] = {
        name: 0 if dtype == "int64" else "" if dtype == "category" else 0.0 for name, dtype in VISITS.items()
    }
    return row | {
        "kind": kind, "stage": kind, "engine": "e", "arrival_s": arrival_s, "finish_s": finish_s,
        "service_s": service_s, "transfer_s": transfer_s,
    }  # fmt: skip


def parts_of(
    visits: list[dict[str, object]],
    first_token_s: float,
    arrival_s: float = 0.0,
    engine_first_token_s: float | None = None,
) -> dict[str, float]:
    engine_first_token_s = first_token_s if engine_first_token_s is None else engine_first_token_s
    columns = {
        name: np.array([row[name] for row in visits], dtype=object if dtype == "category" else dtype)
        for name, dtype in VISITS.items()
    }
    request = {"request": [0], "arrival_s": [arrival_s], "first_token_s": [first_token_s]}
    requests = pd.DataFrame(request).assign(ttft_s=first_token_s - arrival_s, engine_first_token_s=engine_first_token_s)
    parts = ttft_parts(requests, data_frame(columns, VISITS)).iloc[0]
    return {str(name): float(value) for name, value in parts.items()}


def test_by_hand(frames: dict[str, pd.DataFrame]) -> None:
    parts = ttft_parts(frames["requests"], frames["visits"])
    assert list(parts.columns) == ["queue", "retrieve", "prefill", "decode", "transfer", "host", "other"]
    assert parts.loc[0].to_dict() == pytest.approx(
        {"queue": 0.2, "retrieve": 0.3, "prefill": 0.3, "decode": 0.0, "transfer": 0.1, "host": 0.1, "other": 0.0}
    )
    # Request 1 has one output token: its decode visit ends with the first token and took no time.
    assert parts.loc[1].to_dict() == pytest.approx(
        {"queue": 1.0, "retrieve": 0.5, "prefill": 0.5, "decode": 0.0, "transfer": 0.0, "host": 0.0, "other": 0.0}
    )
    # Request 4 skipped retrieval at 4 s, was moved from 5 s on, and nothing covers 4 s to 5 s.
    assert parts.loc[4].to_dict() == pytest.approx(
        {"queue": 1.0, "retrieve": 0.0, "prefill": 1.0, "decode": 0.0, "transfer": 1.0, "host": 0.0, "other": 1.0}
    )


def test_parts_add_up_to_ttft(frames: dict[str, pd.DataFrame]) -> None:
    parts = ttft_parts(frames["requests"], frames["visits"])
    with_token = frames["requests"].dropna(subset="ttft_s")
    np.testing.assert_array_equal(parts.index, with_token["request"])
    np.testing.assert_allclose(parts.sum(axis=1), with_token["ttft_s"])


def test_of_two_branches_the_later_one_is_on_the_path() -> None:
    parts = parts_of(
        [visit("retrieve", 0.0, 2.0, 2.0), visit("embed", 0.0, 1.0, 1.0), visit("prefill", 2.0, 3.0, 1.0)], 3.0
    )
    assert parts["retrieve"] == 2.0
    assert parts["embed"] == 0.0


def test_a_repeated_stage_counts_every_time() -> None:
    rounds = [visit("retrieve", 0.0, 1.0, 0.5), visit("retrieve", 1.0, 3.0, 2.0), visit("prefill", 3.0, 4.0, 1.0)]
    parts = parts_of(rounds, 4.0)
    assert parts["retrieve"] == 2.5
    assert parts["queue"] == 0.5


def test_visits_after_the_first_token_do_not_count() -> None:
    parts = parts_of([visit("prefill", 0.0, 1.0, 1.0), visit("decode", 1.0, 9.0, 8.0)], 1.0)
    assert parts["decode"] == 0.0
    assert parts["prefill"] == 1.0


def test_the_input_was_sent_off_when_the_stage_before_ended() -> None:
    moved = [visit("retrieve", 0.0, 1.0, 1.0), visit("prefill", 1.5, 3.0, 1.0, transfer_s=0.5)]
    assert parts_of(moved, 3.0) == pytest.approx(
        {"queue": 0.5, "retrieve": 1.0, "prefill": 1.0, "transfer": 0.5, "host": 0.0, "other": 0.0}
    )


def test_the_front_end_is_before_the_engine_and_after_it() -> None:
    # 0.2 s with a tokeniser from the arrival at 0, the engine from 0.2 s to 1.2 s, 0.05 s to the client.
    parts = parts_of([{**visit("prefill", 0.2, 1.2, 0.7), "tokenize_s": 0.2}], 1.25, engine_first_token_s=1.2)
    assert parts == pytest.approx(
        {"queue": 0.3, "prefill": 0.7, "transfer": 0.0, "host": 0.0, "front_end": 0.25, "other": 0.0}
    )


def test_no_first_token_no_rows(frames: dict[str, pd.DataFrame]) -> None:
    assert len(ttft_parts(frames["requests"].iloc[[2, 3]], frames["visits"])) == 0
