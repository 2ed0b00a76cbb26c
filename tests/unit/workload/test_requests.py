"""Laws of the request table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import TraceError
from hermes_sim.workload.requests import (
    ClosedLoop,
    concatenate_hashes,
    request_table,
    select_requests,
)


def test_missing_columns_say_none() -> None:
    table = request_table([0.0, 1.0], [5, 6], [7, 8])
    assert table.num_requests == 2
    assert table.session.tolist() == table.previous.tolist() == table.prefix_group.tolist() == [-1, -1]
    assert table.hash_offsets.tolist() == [0, 0, 0]
    assert table.pipeline is None


def test_empty_table() -> None:
    table = request_table([], [], [], notes=("nothing arrives",))
    assert table.num_requests == 0
    assert table.notes == ("nothing arrives",)


@pytest.mark.parametrize(
    ("columns", "law"),
    [
        ({"arrival_s": [1.0, 0.0]}, "row 0: arrival_s is not sorted"),
        ({"arrival_s": [0.0, -1.0]}, "row 1: arrival_s is negative"),
        ({"arrival_s": [0.0, np.inf]}, "row 1: arrival_s is infinite"),
        ({"arrival_s": [0.0, np.nan]}, "row 1: arrival_s is missing and there is no previous turn"),
        ({"num_prompt_tokens": [1, -1]}, "row 1: num_prompt_tokens is negative"),
        ({"num_output_tokens": [1]}, "num_output_tokens has 1 rows, arrival_s 2"),
        ({"previous": [-1, 1]}, "row 1: previous is not an earlier row"),
        ({"think_s": [0.0, np.nan]}, "row 1: think_s is not finite"),
        ({"prefix_group": [0, 0], "prefix_tokens": [0, 99]}, "row 1: prefix_tokens exceeds num_prompt_tokens"),
        ({"prefix_tokens": [1, 1]}, "row 0: prefix_tokens without a prefix_group"),
        ({"pipeline": [0, 1], "pipeline_names": ("rag",)}, "row 1: pipeline is not an index"),
        ({"hash_offsets": [0, 1, 3], "hash_ids": [1, 2, 3]}, "row 1: more hash_ids than blocks of 512"),
        ({"hash_offsets": [0, 1, 1], "hash_ids": [1, 2]}, "hash_offsets does not span hash_ids"),
        ({"closed_loop": ClosedLoop(1, np.zeros(1))}, "closed_loop has 1 think times for 2 requests"),
    ],
)
def test_broken_laws_are_named(columns: dict[str, Any], law: str) -> None:
    complete = {"arrival_s": [0.0, 1.0], "num_prompt_tokens": [10, 10], "num_output_tokens": [1, 1]} | columns
    with pytest.raises(TraceError, match=law.replace("(", r"\(")):
        request_table(**complete)


def test_a_closed_loop_needs_no_arrivals() -> None:
    table = request_table([np.nan] * 2, [1, 1], [1, 1], closed_loop=ClosedLoop(1, np.zeros(2)))
    assert table.num_requests == 2


def test_select_keeps_hashes_and_links() -> None:
    offsets, ids = concatenate_hashes([[7, 8], [], [9]])
    table = request_table(
        [0.0, 1.0, np.nan], [1024, 5, 100], [1, 2, 3], previous=[-1, -1, 0], session=[4, -1, 4],
        hash_offsets=offsets, hash_ids=ids,
    )  # fmt: skip
    kept = select_requests(table, np.array([0, 2]))
    assert kept.previous.tolist() == [-1, 0]
    assert kept.num_prompt_tokens.tolist() == [1024, 100]
    assert kept.hash_offsets.tolist() == [0, 2, 3]
    assert kept.hash_ids.tolist() == [7, 8, 9]


def test_a_waiting_turn_cannot_lose_its_previous_one() -> None:
    table = request_table([0.0, np.nan], [1, 1], [1, 1], previous=[-1, 0])
    with pytest.raises(TraceError, match="no previous turn"):
        select_requests(table, np.array([1]))
