"""Near matches name what was meant, and nothing where nothing is near."""

from __future__ import annotations

import pytest

from hermes_sim.core.words import did_you_mean, listed, near_match, shown, with_article


@pytest.mark.parametrize(
    ("word", "options", "match"),
    [
        ("ivfpq", ["flat", "hnsw", "ivf_flat", "ivf_pq"], "ivf_pq"),
        ("max_num_seq", ["max_num_seqs", "max_wait"], "max_num_seqs"),
        ("H100-SXM", ["h100_sxm", "h200_sxm"], "h100_sxm"),
        ("zebra", ["flat", "hnsw"], None),
        ("x", [], None),
    ],
)
def test_near_match(word: str, options: list[str], match: str | None) -> None:
    assert near_match(word, options) == match
    assert did_you_mean(word, options) == (f" Did you mean {match!r}?" if match else "")


def test_values_are_shown_as_in_a_file() -> None:
    assert [shown(value) for value in (None, True, "no", 3, [1], {"a": 1})] == [
        "nothing", "true", "'no'", "3", "a list", "a mapping",
    ]  # fmt: skip


def test_long_lists_are_cut() -> None:
    assert listed(str(number) for number in range(100)).endswith("22, 23, ...")


def test_article() -> None:
    assert with_article("index kind") == "an index kind"
    assert with_article("device") == "a device"
