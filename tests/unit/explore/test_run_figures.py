"""Figures of tables of runs: the front, the field, the surface, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim import cli
from hermes_sim.analysis.figures.heat import short
from hermes_sim.analysis.pareto import pareto_front
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_figures import axes_of, heat_map, pareto, slo_surface
from hermes_sim.explore.run_table import RUNS_FILE, run_table, save_table

COSTS = {("1", "1 /s"): 4.0, ("1", "2 /s"): 2.0, ("2", "1 /s"): 8.0, ("2", "2 /s"): 3.0}
TTFTS = {("1", "1 /s"): 0.2, ("1", "2 /s"): 0.8, ("2", "1 /s"): 0.1, ("2", "2 /s"): 0.9}
MET = {("1", "1 /s"): 0.95, ("1", "2 /s"): 0.4, ("2", "1 /s"): 1.0, ("2", "2 /s"): 0.91}


@pytest.fixture
def runs() -> pd.DataFrame:
    """Two tp by two rates, two seeds each, whose mean is the value; one failed run beside them."""
    rows: list[dict[str, Any]] = []
    for (tp, rate), cost in COSTS.items():
        for seed, off in ((1, 0.05), (2, -0.05)):
            rows.append({
                "tp": tp, "rate": rate, "seed": seed, "status": "done", "error": "", "scenario": f"{tp}{rate}{seed}",
                "wall_time_s": 1.0, "cost_per_million_output_tokens_usd": cost + off,
                "ttft_p99_s": TTFTS[tp, rate] + off, "slo_met_frac": MET[tp, rate], "output_tokens_per_s": 100.0 * cost,
            })  # fmt: skip
    rows.append({**rows[0], "seed": 3, "status": "failed", "error": "lost", "cost_per_million_output_tokens_usd": 0.0})
    return run_table({"tp": ["1", "2"], "rate": ["1 /s", "2 /s"]}, rows)


def test_the_front_is_what_no_point_beats() -> None:
    values = [[1, 3], [2, 2], [3, 1], [3, 3], [1, 3], [0, np.nan]]
    assert pareto_front(values, ["lower", "lower"]).tolist() == [True, True, True, False, True, False]
    assert pareto_front(values, ["lower", "higher"]).tolist() == [True, False, False, False, True, False]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_who_is_not_on_the_front_is_beaten_by_somebody_on_it(points: list[tuple[int, int, int]]) -> None:
    front = pareto_front(points, ["lower"] * 3)
    assert front.any()
    best = [point for point, on in zip(points, front, strict=True) if on]
    for point, on in zip(points, front, strict=True):
        beaten = [one for one in best if one != point and all(a <= b for a, b in zip(one, point, strict=True))]
        assert bool(beaten) != on


def test_the_front_of_the_runs(runs: pd.DataFrame) -> None:
    figure = pareto(runs)
    (axes,) = figure.axes
    (front,) = axes.get_lines()
    # cost 2 with 0.8 s, 4 with 0.2 s, 8 with 0.1 s; (3, 0.9 s) is beaten by the first
    assert np.asarray(front.get_xydata()) == pytest.approx(np.array([[2.0, 0.8], [4.0, 0.2], [8.0, 0.1]]))
    filled = [np.asarray(one.get_offsets()) for one in axes.collections if one.get_label() in ("1", "2")]
    assert [len(one) for one in filled] == [2, 1]
    assert "lower is better" in axes.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "2", "Pareto front"]
    assert {text.get_text() for text in axes.texts} <= {"rate 1 /s", "rate 2 /s"}
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_a_field_of_means(runs: pd.DataFrame) -> None:
    figure = heat_map(runs, "ttft_p99_s")
    axes = figure.axes[0]
    (cells,) = axes.get_images()
    assert np.asarray(cells.get_array()) == pytest.approx(np.array([[0.2, 0.8], [0.1, 0.9]]))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate (/s)", "tp")
    assert [text.get_text() for text in axes.texts] == ["0.20", "0.80", "0.10", "0.90"]
    turned = heat_map(runs, "ttft_p99_s", columns="tp").axes[0].get_images()[0].get_array()
    assert np.asarray(turned) == pytest.approx(np.array([[0.2, 0.1], [0.8, 0.9]]))
    assert heat_map(runs).axes[1].get_ylabel() == "output (tokens/s)"  # no goodput in these


def test_the_border_runs_where_the_target_is_kept(runs: pd.DataFrame) -> None:
    figure = slo_surface(runs)
    axes = figure.axes[0]
    assert np.asarray(axes.get_images()[0].get_array()) == pytest.approx(np.array([[95.0, 40.0], [100.0, 91.0]]))
    inner = axes.collections[1].get_segments()  # type: ignore[attr-defined]
    # Inside: three cells of the four. Their border has eight sides, two of them around the missing corner.
    sides = {tuple(map(tuple, np.sort(np.asarray(side), axis=0).tolist())) for side in inner}
    assert len(sides) == len(inner) == 8
    assert ((0.5, -0.5), (0.5, 0.5)) in sides
    assert ((0.5, 0.5), (1.5, 0.5)) in sides
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["90% of requests within the SLO"]
    loose = slo_surface(runs, target=0.3).axes[0].collections[1].get_segments()  # type: ignore[attr-defined]
    assert len(loose) == 8  # around all four


def test_what_cannot_be_drawn_is_told(runs: pd.DataFrame) -> None:
    with pytest.raises(HermesError, match=r"'ttft_p9_s' is not a metric of the runs.*ttft_p99_s"):
        pareto(runs, y="ttft_p9_s")
    with pytest.raises(HermesError, match=r"'rat' is not an axis of the runs .tp, rate.*Did you mean 'rate'"):
        heat_map(runs, columns="rat")
    with pytest.raises(HermesError, match="needs two axes with several values; the runs have tp"):
        heat_map(runs[runs["rate"] == "1 /s"])
    with pytest.raises(HermesError, match="none of the runs has ended well"):
        pareto(runs[runs["status"] == "failed"])
    with pytest.raises(HermesError, match="no request was held against one"):
        slo_surface(runs.assign(slo_met_frac=np.nan))
    with pytest.raises(HermesError, match="no column 'seed'"):
        axes_of(runs.drop(columns="seed"))


def test_numbers_of_cells_are_short() -> None:
    assert [short(value) for value in (0.0123, 1.0, 97.4, 999.0, 1234.0, 12_345.0, 3.2e6)] == [
        "0.012", "1.0", "97", "999", "1.2k", "12.3k", "3.20M",
    ]  # fmt: skip


def test_the_command_draws_a_table(tmp_path: Path, runs: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    save_table(runs, tmp_path / RUNS_FILE)
    assert command(str(tmp_path), "--format", "svg", "--x", "output_tokens_per_s") == 0
    out, err = capsys.readouterr()
    assert out == f"wrote {tmp_path / 'figures'} (pareto.svg, heat_map.svg, slo_surface.svg)\n"
    assert err == ""
    assert "output (tokens/s), higher is better" in (tmp_path / "figures" / "pareto.svg").read_text()
    save_table(runs.drop(columns="slo_met_frac"), tmp_path / RUNS_FILE)
    assert command(str(tmp_path), "--out", str(tmp_path / "other")) == 0
    assert "left out slo_surface: the runs have no SLO" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["heat_map.pdf", "pareto.pdf"]
    assert command(str(tmp_path), "--only", "slo_surface") == 2
    assert "slo_surface: the runs have no SLO" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "cdf"), "--only cdf: no figure of this folder (pareto, heat_map, slo_surface)"),
        (("--width", "wide"), "--width wide: needs column, page, or inches between 1 and 40"),
    ],
)
def test_wrong_arguments_are_told(
    tmp_path: Path, runs: pd.DataFrame, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    save_table(runs, tmp_path / RUNS_FILE)
    assert command(str(tmp_path), *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["figures", *arguments])
    return int(ended.value.code or 0)
