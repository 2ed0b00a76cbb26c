"""Figures hold what the tables say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hermes_sim.analysis.results import Results
from hermes_sim.core.tables import RunTables
from tests.unit.analysis.test_results import results_of


@pytest.fixture
def results(tables: RunTables) -> Results:
    return results_of(tables)


def test_ttft_is_a_cumulative_distribution_with_the_slo_lines(results: Results) -> None:
    (axes,) = results.plot.ttft().axes
    curve, *limits = axes.get_lines()
    assert list(curve.get_xdata()) == [1.0, 1.0, 2.0, 4.0]
    assert curve.get_ydata()[-1] == 1.0
    assert [line.get_xdata()[0] for line in limits] == [1.5, 3.0]


def test_latencies_side_by_side(results: Results) -> None:
    assert [axes.get_xlabel() for axes in results.plot.latency().axes] == ["TTFT (s)", "TPOT (s)", "E2E (s)"]
    with pytest.raises(ValueError, match="'itl' is not a latency of requests"):
        results.plot.latency("itl")


def test_stages_add_up_to_the_time_in_them(results: Results) -> None:
    (axes,) = results.plot.stages().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["retrieve", "prefill", "decode"]
    totals = np.sum([[bar.get_width() for bar in part] for part in axes.containers], axis=0)
    assert totals[0] == pytest.approx((0.1 + 1.3) / 3)


def test_engines_show_their_utilization(results: Results) -> None:
    (axes,) = results.plot.engines().axes
    totals = np.sum([[bar.get_width() for bar in part] for part in axes.containers], axis=0)
    assert list(totals) == pytest.approx([0.64, 0.13])


def test_a_limit_far_out_is_named_but_not_drawn(tables: RunTables) -> None:
    (axes,) = results_of(tables, slo={"ttft": {"p99": "60 s"}}).plot.ttft().axes
    assert axes.get_xlim()[1] < 5.0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["p99 <= 60 s (beyond)"]


def test_timeline_is_the_mean_number_of_requests_per_slice(results: Results) -> None:
    panels = results.plot.timeline().axes
    assert [axes.get_ylabel() for axes in panels] == ["retrieve", "prefill", "decode"]
    inside, in_service = (patch.get_data() for patch in panels[1].patches)
    # Prefill visits last 0.5, 1.5, 1.5 and 2 s, of which 0.4, 0.5, 0.5 and 1 s from their first step on.
    assert inside.values.mean() == pytest.approx((0.5 + 1.5 + 1.5 + 2.0) / 10)
    assert in_service.values.mean() == pytest.approx((0.4 + 0.5 + 0.5 + 1.0) / 10)


def test_engines_over_time_are_the_intervals(results: Results) -> None:
    panels = results.plot.engine_timeline().axes
    assert [axes.get_ylabel() for axes in panels] == ["utilization", "MFU", "batch", "KV used", "waiting"]
    llm, retriever = (patch.get_data() for patch in panels[0].patches)
    assert list(llm.edges) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert list(llm.values) == [0.7, 1.0, 0.0, 0.5, 1.0]
    assert list(retriever.values) == [0.13] * 5
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["llm[0]", "retriever[0]"]


def test_an_empty_run_can_be_drawn(tables: RunTables) -> None:
    nothing = {column: values[:0] for column, values in tables.requests.items()}
    no_visits = {column: values[:0] for column, values in tables.visits.items()}
    no_time = {column: values[:0] for column, values in tables.timeline.items()}
    plot = results_of(replace(tables, requests=nothing, visits=no_visits, timeline=no_time, duration_s=0.0)).plot
    for figure in (plot.latency(), plot.timeline(), plot.engine_timeline(), plot.stages(), plot.engines()):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_a_notebook_gets_a_picture(results: Results) -> None:
    assert results.plot.e2e()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
