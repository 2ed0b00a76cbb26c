"""Every word is defined once, the page equals the code, and look-ups forgive spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.analysis.glossary import TERMS, define, definition_text, glossary_markdown
from hermes_sim.core.errors import HermesError
from hermes_sim.core.tables import RECORDED_SCHEMAS, SCHEMAS

PAGE = Path(__file__).parents[3] / "docs" / "glossary.md"


def test_the_page_is_generated() -> None:
    assert PAGE.read_text(encoding="utf-8") == glossary_markdown()


def test_references_and_aliases_lead_somewhere() -> None:
    for term in TERMS.values():
        for name in term.see:
            assert define(name).name == name
        for alias in term.aliases:
            assert define(alias) is term, alias


@pytest.mark.parametrize("table", [*SCHEMAS, *RECORDED_SCHEMAS])
def test_every_column_of_the_results_is_defined(table: str) -> None:
    for column in {**SCHEMAS, **RECORDED_SCHEMAS}[table]:
        assert define(column).definition


def test_columns_lead_to_their_word() -> None:
    found = {column: define(column).name for column in ("ttft_s", "num_drafted_tokens", "acceptance_frac", "mfu_frac")}
    assert found == {
        "ttft_s": "TTFT", "num_drafted_tokens": "speculative decoding", "acceptance_frac": "speculative decoding",
        "mfu_frac": "MFU",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["ttft", "TTFT", "Time-to-first-token", "time to first token"])
def test_spelling_is_forgiven(word: str) -> None:
    assert define(word).name == "TTFT"


def test_a_near_match_is_offered() -> None:
    with pytest.raises(HermesError, match=r"no definition of 'godput'\. Did you mean 'goodput'\?"):
        define("godput")
    with pytest.raises(HermesError, match=r"no definition of 'xyzzy'\. Defined are: request, pipeline"):
        define("xyzzy")


def test_a_definition_fits_the_terminal() -> None:
    assert all(len(line) <= 80 for term in TERMS.values() for line in definition_text(term).splitlines())


@pytest.mark.parametrize(
    "word",
    ["itl", "tpot", "e2e", "goodput", "mfu", "mbu", "visit", "stage", "engine", "step", "prefix hit", "preemption",
     "slo", "utilization", "batch", "kv block", "unloaded", "bottleneck", "saturated", "confidence", "warm_up"],
)  # fmt: skip
def test_the_words_of_the_summary_are_defined(word: str) -> None:
    assert define(word).definition.endswith(".")
