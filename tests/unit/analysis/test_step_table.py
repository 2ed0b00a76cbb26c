"""Steps on the screen: one line each, aligned, nothing wider than the screen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import data_frame
from hermes_sim.analysis.step_table import WIDTH, step_lines
from hermes_sim.core.tables import STEPS


def steps(*rows: dict[str, Any]) -> pd.DataFrame:
    empty = {"int64": 0, "float64": 0.0, "category": ""}
    columns = {
        name: np.array([row.get(name, empty[dtype]) for row in rows], object if dtype == "category" else dtype)
        for name, dtype in STEPS.items()
    }
    return data_frame(columns, STEPS)


FIRST = {
    "engine": "llm[0]", "start_s": 0.25, "end_s": 0.2812, "num_tokens": 514, "num_decode": 2, "num_prefill": 1,
    "num_prefill_tokens": 512, "num_running": 3, "num_waiting": 4, "num_admitted": 1, "admitted": "7:64",
    "kv_used_frac": 0.4,
}  # fmt: skip
SECOND = {
    "engine": "llm[0]", "step": 1, "start_s": 0.2812, "end_s": 0.294, "num_tokens": 8, "num_decode": 2,
    "num_running": 2, "num_waiting": 5, "num_preempted": 1, "preempted": "7", "num_finished": 1,
    "num_drafted_tokens": 6, "num_accepted_tokens": 4, "kv_used_frac": 0.99,
}  # fmt: skip


def test_lines_by_hand() -> None:
    head, first, second = step_lines(steps(FIRST, SECOND), 20)
    assert head.split() == ["step", "start", "took", "tokens", "decodes", "prompts", "run", "wait", "KV"]
    assert first.split() == ["0", "0.2500", "s", "31.2", "ms", "514", "2", "1:512", "3", "4", "40%", "+7:64"]
    assert second.split() == [
        "1", "0.2812", "s", "12.8", "ms", "8", "2", "-", "2", "5", "99%", "-7", "1", "ended", "4/6", "drafts",
    ]  # fmt: skip
    for title in ("tokens", "decodes", "prompts"):
        end = head.index(title) + len(title)
        assert first[end] == " "
        assert first[end - 1] != " "


def test_only_the_first_ones_and_no_wider_than_the_screen() -> None:
    crowd = {**FIRST, "engine": "llm[1]", "admitted": " ".join(f"{request}:0" for request in range(10, 110))}
    lines = step_lines(steps(FIRST, crowd, SECOND), 2)
    assert len(lines) == 3
    assert max(map(len, lines)) <= WIDTH
    assert lines[2].startswith("llm[1] ")
    assert lines[2].endswith("  +10:0 +11:0 (98 more)")


def test_no_steps() -> None:
    assert len(step_lines(steps(), 20)) == 1
