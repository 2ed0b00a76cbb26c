"""Figures hold what the tables say."""

from __future__ import annotations

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


def test_timeline_has_a_panel_per_stage(results: Results) -> None:
    assert [axes.get_ylabel() for axes in results.plot.timeline().axes] == ["retrieve", "prefill", "decode"]


def test_a_notebook_gets_a_picture(results: Results) -> None:
    assert results.plot.e2e()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
