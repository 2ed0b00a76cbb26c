"""Figures hold what the tables say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from hermes_sim import cli
from hermes_sim.analysis import figures
from hermes_sim.analysis.picture import WIDTHS_IN, save_figure
from hermes_sim.analysis.results import Results
from hermes_sim.core.errors import HermesError
from hermes_sim.core.tables import RunTables, Table
from tests.unit.analysis.test_results import results_of

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def results(tables: RunTables) -> Results:
    return results_of(tables)


def with_work(tables: RunTables) -> RunTables:
    """The operators have FLOPs and bytes, the retriever's as well."""
    operators: Table = dict(tables.operators)
    operators["flops"] = np.array([2e14, 1e13, 4e11])
    operators["bytes"] = np.array([2e11, 1e11, 4e11])
    return replace(tables, operators=operators)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def test_a_distribution_counts_the_finished_requests(results: Results) -> None:
    figure = results.plot.ttft()
    (axes,) = figure.axes
    curve, *limits = axes.get_lines()
    assert list(curve.get_xdata()) == [1.0, 1.0, 2.0, 4.0]
    assert list(curve.get_ydata()) == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert [line.get_xdata()[0] for line in limits] == [1.5, 3.0]
    assert legend(figure) == ["TTFT p50 ≤ 1.5 s", "TTFT p99 ≤ 3 s"]


def test_latencies_side_by_side_or_one_above_the_other(results: Results) -> None:
    page, column = results.plot.cdf(), results.plot.cdf(width="column")
    assert [axes.get_xlabel() for axes in page.axes] == ["TTFT (s)", "TPOT (s)", "E2E (s)"]
    assert len({axes.get_position().y0 for axes in page.axes}) == 1
    assert len({axes.get_position().x0 for axes in column.axes}) == 1
    with pytest.raises(HermesError, match="'itl' is not a latency of requests"):
        results.plot.cdf("itl")


def test_several_runs_are_compared_by_curves(results: Results) -> None:
    figure = results.plot.cdf("e2e", again=results)
    (axes,) = figure.axes
    first, second = axes.get_lines()
    assert list(first.get_xdata()) == list(second.get_xdata())
    assert first.get_linestyle() != second.get_linestyle()
    assert legend(figure) == ["this run", "again"]


def test_many_requests_are_thinned_but_not_their_tail() -> None:
    from hermes_sim.analysis.figures.cdf import MOST_POINTS, _curve

    values = np.sort(np.random.default_rng(1).lognormal(size=20_000))
    x, y = _curve(values)
    assert len(x) <= MOST_POINTS + 1
    assert (x[-1], y[-1]) == (values[-1], 1.0)
    assert set(values[-5:]) <= set(x)
    assert np.abs(np.searchsorted(values, x[1:], side="right") / len(values) - y[1:]).max() == 0.0


def test_a_limit_far_out_is_named_but_not_drawn(tables: RunTables) -> None:
    figure = results_of(tables, slo={"ttft": {"p99": "60 s"}}).plot.ttft()
    assert figure.axes[0].get_xlim()[1] < 5.0
    assert legend(figure) == ["TTFT p99 ≤ 60 s (beyond)"]


def test_stages_add_up_to_the_time_in_them(results: Results) -> None:
    (axes,) = results.plot.stages().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["retrieve", "prefill", "decode"]
    totals = np.sum([[bar.get_width() for bar in part] for part in axes.containers], axis=0)
    assert totals[0] == pytest.approx((0.1 + 1.3) / 3)
    hatches = [part[0].get_hatch() for part in axes.containers]
    assert len(set(hatches)) == len(hatches)  # told apart without colour


def test_engines_show_their_utilization(results: Results) -> None:
    (axes,) = results.plot.engines().axes
    totals = np.sum([[bar.get_width() for bar in part] for part in axes.containers], axis=0)
    assert list(totals) == pytest.approx([0.64, 0.13])


def test_timeline_is_the_mean_number_of_requests_per_slice(results: Results) -> None:
    panels = results.plot.timeline().axes
    assert [axes.get_ylabel() for axes in panels] == ["retrieve", "prefill", "decode"]
    inside, in_service = (patch.get_data() for patch in panels[1].patches)
    # Prefill visits last 0.5, 1.5, 1.5 and 2 s, of which 0.4, 0.5, 0.5 and 1 s from their first step on.
    assert inside.values.mean() == pytest.approx((0.5 + 1.5 + 1.5 + 2.0) / 10)
    assert in_service.values.mean() == pytest.approx((0.4 + 0.5 + 0.5 + 1.0) / 10)


def test_engines_over_time_are_the_intervals(results: Results) -> None:
    figure = results.plot.engine_timeline()
    assert [axes.get_ylabel() for axes in figure.axes] == ["utilization", "MFU", "batch", "KV used", "waiting"]
    llm, retriever = (patch.get_data() for patch in figure.axes[0].patches)
    assert list(llm.edges) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert list(llm.values) == [0.7, 1.0, 0.0, 0.5, 1.0]
    assert list(retriever.values) == [0.13] * 5
    assert legend(figure) == ["llm[0]", "retriever[0]"]


def test_operators_lie_where_their_work_puts_them(tables: RunTables) -> None:
    results = results_of(with_work(tables))
    figure = results.plot.roofline()
    (axes,) = figure.axes
    prefill, decode = (points.get_offsets() for points in axes.collections)
    assert np.asarray(prefill).ravel() == pytest.approx([1e3, 2e14 / 0.3, 1e2, 1e13 / 0.1])
    assert np.asarray(decode).ravel() == pytest.approx([1.0, 4e11 / 0.02])
    slope = axes.get_lines()[0]
    x, y = np.asarray(slope.get_xdata(), float), np.asarray(slope.get_ydata(), float)
    assert y / x == pytest.approx(4 * 2.039e12, rel=0.01)  # four A100 of 2,039 GB/s
    assert y[-1] == max(4 * 312e12, 4 * 624e12)
    written = [text for text in axes.texts if text.get_text() in ("linear", "attention")]
    assert written  # and none over another
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes[:2]) for b in boxes[3:])
    with pytest.raises(HermesError, match=r"no roofline of 'retriever'.*there are llm"):
        results.plot.roofline("retriever")


def every_figure(results: Results) -> list[Callable[..., Figure]]:
    plot = results.plot
    return [plot.cdf, plot.timeline, plot.engine_timeline, plot.stages, plot.engines, plot.roofline]


@pytest.mark.parametrize("width", ["column", "page"])
def test_figures_have_the_width_of_a_column_or_a_page(tables: RunTables, width: str) -> None:
    for draw in every_figure(results_of(with_work(tables))):
        figure = draw(width=width)
        assert figure.get_figwidth() == WIDTHS_IN[width]
        figure.draw_without_rendering()
        frame = figure.bbox
        for found in figure.legends:  # outside of the data, inside the figure
            box = found.get_window_extent()
            assert frame.x0 <= box.x0
            assert box.x1 <= frame.x1
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        sizes = {text.get_fontsize() for axes in figure.axes for text in (axes.xaxis.label, *axes.get_xticklabels())}
        assert sizes <= {7.0, 8.0}


def test_an_empty_run_can_be_drawn(tables: RunTables) -> None:
    nothing = {column: values[:0] for column, values in tables.requests.items()}
    no_visits = {column: values[:0] for column, values in tables.visits.items()}
    no_time = {column: values[:0] for column, values in tables.timeline.items()}
    plot = results_of(replace(tables, requests=nothing, visits=no_visits, timeline=no_time, duration_s=0.0)).plot
    for figure in (plot.cdf(), plot.timeline(), plot.engine_timeline(), plot.stages(), plot.engines()):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(HermesError, match="no operators with FLOPs and bytes"):
        plot.roofline()


def test_the_users_settings_neither_count_nor_change(results: Results, tmp_path: Path) -> None:
    save_figure(results.plot.stages(), tmp_path / "plain.svg")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "mine"}):
        figure = results.plot.stages()
        save_figure(figure, tmp_path / "mine.svg")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "mine.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()


def test_widths_are_told(results: Results) -> None:
    assert figures.stages(results, width=5.5).get_figwidth() == 5.5
    with pytest.raises(HermesError, match="width 'wide': needs column or page, or inches"):
        results.plot.stages(width="wide")  # type: ignore[arg-type]


DRAW = """
for name in ("stages", "roofline"):
    for suffix in ("pdf", "svg"):
        save_figure(getattr(plot, name)(width="column"), folder / f"{name}.{suffix}")
"""
SCRIPT = f"""
import sys
from pathlib import Path
from hermes_sim.analysis.picture import save_figure
from hermes_sim.analysis.results import Results
plot, folder = Results.load(sys.argv[1]).plot, Path(sys.argv[2])
{DRAW}
"""


def test_equal_runs_give_equal_files_with_their_fonts(tables: RunTables, tmp_path: Path) -> None:
    """Here, and in a process of its own with other hashes."""
    results = results_of(with_work(tables))
    results.save(tmp_path / "run")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    exec(DRAW, {"plot": results.plot, "save_figure": save_figure, "folder": tmp_path / "here"})
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(tmp_path / "there")]
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    first, second = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())} for name in ("here", "there")
    )
    assert len(first) == 4
    assert [name for name in first if first[name] != second[name]] == []
    for name, content in first.items():
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content, name  # TrueType, embedded
            assert b"/Type3" not in content, name
            assert b"CreationDate" not in content, name
        if name.endswith(".svg"):
            assert b"<text" in content, name


def test_the_command_draws_a_run(tables: RunTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    results_of(with_work(tables)).save(run)
    assert command(str(run), "--only", "stages,roofline", "--format", "pdf", "--format", "svg") == 0
    names = "stages.pdf, stages.svg, roofline-llm.pdf, roofline-llm.svg"
    assert capsys.readouterr().out == f"wrote {run / 'figures'} ({names})\n"
    results_of(tables).save(run)  # a run with figures beside it may be written again
    assert command(str(run), "--x", "ttft_p50_s") == 2
    assert "--x is for a table of runs" in capsys.readouterr().err
    assert command(str(run), "--only", "stages,roofline") == 2
    assert "roofline: no engine has operators with FLOPs and bytes" in capsys.readouterr().err


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["figures", *arguments])
    return int(ended.value.code or 0)
