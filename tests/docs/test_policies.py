"""docs/policies.md: its tables are those of benchmarks/policies.py; what it says about them holds on shorter runs."""

from __future__ import annotations

import pytest

from benchmarks import policies
from hermes_sim.batching import TOKEN_POLICIES
from tests.docs.blocks import REPOSITORY

PAGE = (REPOSITORY / "docs" / "policies.md").read_text(encoding="utf-8")


def number(cell: str) -> float:
    """The figure that a cell begins with."""
    return float(cell.partition(" ")[0].replace(",", "").rstrip("x%"))


def column(name: str, rows: policies.Rows, title: str) -> dict[str, float]:
    """Figures of a column by the row's first cell."""
    head, _ = policies.TABLES[name]
    return {row[0].strip("`"): number(row[list(head).index(title)]) for row in rows}


def test_the_tables_are_on_the_page() -> None:
    for head, _ in policies.TABLES.values():
        assert f"| {' | '.join(head)} |" in PAGE


def test_every_compiled_policy_is_compared() -> None:
    assert set(policies.POLICIES) == set(TOKEN_POLICIES)


def test_side_by_side() -> None:
    """Static is worst; whole prompts make long gaps, chunks short ones at the price of a later first token."""
    rows = policies.side_by_side(num=200)
    assert [row[0] for row in rows] == [f"`{policy}`" for policy in policies.POLICIES]
    gap, first, whole = (column("side by side", rows, title) for title in ("ITL p99", "TTFT p50", "mean E2E"))
    assert first["static"] > 10 * max(first[policy] for policy in policies.POLICIES if policy != "static")
    assert gap["static"] == min(gap.values())
    for policy in ("continuous", "prefill_first", "mixed_pool", "padded", "prepacked"):
        assert gap[policy] > 4 * gap["decode_first"]
        assert first[policy] < first["decode_first"]
        assert whole[policy] > 0.95 * whole["decode_first"]
    assert gap["layered_prefill"] == pytest.approx(gap["decode_first"], rel=0.5)
    assert rows[1][1:] == rows[3][1:], "twins"
    assert rows[4][1:] == rows[5][1:], "twins"


def test_a_budget_serves_more_within_a_limit_on_gaps() -> None:
    rates = {
        policy: policies.sustained_rate(policies.YI, policy, num_tokens, "arxiv_summarization", 0.2, minutes=4)
        for policy, num_tokens in (("prefill_first", policies.WHOLE_PROMPT_TOKENS), ("decode_first", 512))
    }
    assert 3 < rates["decode_first"] / rates["prefill_first"] < 6


def test_layer_groups_help_a_model_with_experts() -> None:
    rows = [row[1:] for row in policies.layered(num=150)]
    for chunked, layered in zip(rows[::2], rows[1::2], strict=True):
        for place, _ in enumerate(("mean TTFT", "mean TPOT"), start=1):
            assert number(layered[place]) < number(chunked[place])
        assert number(layered[5]) <= number(chunked[5]) < 1.05 * number(layered[5]), "energy hardly moves"
    assert number(rows[1][1]) < 0.75 * number(rows[0][1]), "most at the low rate"


def test_padding_is_dear_for_short_prompts() -> None:
    time = column("padding", policies.padding(num=300), "time")
    assert time["padded"] > 2 * time["prepacked"]
    assert time["prefill_first"] < time["prepacked"]


def test_drafts_help_small_batches_only() -> None:
    """The speed over the same batch without them falls with the load; poor drafts end up below one."""
    rows = policies.speculation(num=150)
    for place in (2, 3):
        gains = [number(row[place].partition(", ")[2]) for row in rows]
        assert gains[0] > gains[1] > max(gains[2:])
        assert gains[0] > 1.3
    assert max(gains[2:]) < 1
