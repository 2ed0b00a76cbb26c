"""The shipped length tables: form, what they say of themselves, and that draws give their marginals back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.workload.lengths.derive import (
    AZURE,
    MOONCAKE,
    PAIRS,
    SERVEGEN,
    derive_all,
    ks_distance,
    rank_correlation,
)
from hermes_sim.workload.lengths.quantile_table import (
    GRID,
    fit_table,
    quantiles,
    read_table,
    shipped_tables,
    write_table,
)
from hermes_sim.workload.statistics import length_table_row

TABLES = shipped_tables()
PAGE = Path(__file__).resolve().parents[3] / "docs" / "traces.md"


def test_every_origin_is_shipped() -> None:
    assert set(TABLES) == {*AZURE, *MOONCAKE, *PAIRS, *SERVEGEN}


@pytest.mark.parametrize("name", TABLES)
def test_shipped_table(name: str) -> None:
    """Small, with origin and licence; joint tables are as good on the held-out half as its other half is."""
    assert TABLES[name].stat().st_size < 60_000
    table = read_table(TABLES[name])
    assert {"title", "source", "kind", "licence", "num_rows", "joint"} <= table.about.keys()
    assert table.about["licence"] in {"CC-BY 4.0", "Apache-2.0", "MIT"}
    error = {key: float(value) for key, value in table.about.items() if re.fullmatch(r"-?\d+\.\d+", value)}
    if name in SERVEGEN:
        assert table.num_bins == 1
        assert max(error["ks_prompt"], error["ks_output"]) < 0.005
        assert abs(error["mean_error_prompt"]) < 0.03
        assert abs(error["mean_error_output"]) < 0.01
    else:
        assert table.num_bins == 20
        assert abs(error["held_out_rank_correlation_error"]) < 0.03
        for side in ("prompt", "output"):
            assert error[f"held_out_ks_{side}"] < error[f"split_ks_{side}"] + 0.005
            assert abs(error[f"held_out_mean_error_{side}"] - error[f"split_mean_error_{side}"]) < 0.01


@pytest.mark.parametrize("name", TABLES)
def test_drawing_gives_the_marginals_back(name: str) -> None:
    """Kolmogorov-Smirnov distance of 50,000 draws to the table's own quantiles: the 1e-4 critical value is 0.0097."""
    table = read_table(TABLES[name])
    prompt, output = table.sample(stream(1, "lengths"), 50_000)
    even = (np.arange(50_000) + 0.5) / 50_000
    expected_prompt = np.rint(np.interp(even, table.probability, table.prompt_tokens)).astype(np.int64)
    expected_output = np.rint([np.interp(even[::100], table.probability, column) for column in table.output_tokens])
    assert ks_distance(prompt, expected_prompt) < 0.0097
    assert ks_distance(output, expected_output.astype(np.int64).ravel()) < 0.0125


def test_a_joint_table_keeps_marginals_and_correlation() -> None:
    rng = stream(1, "test")
    prompt = np.rint(np.exp(rng.normal(6.0, 1.0, 20_000))).astype(np.int64)
    output = np.rint(50 + 0.2 * prompt * rng.random(20_000)).astype(np.int64)
    drawn = fit_table(prompt, output, num_bins=20, about={}).sample(stream(2, "test"), 100_000)
    assert ks_distance(drawn[0], prompt) < 0.015
    assert ks_distance(drawn[1], output) < 0.015
    assert drawn[0].mean() == pytest.approx(prompt.mean(), rel=0.03)
    assert rank_correlation(*drawn) == pytest.approx(rank_correlation(prompt, output), abs=0.01)


def test_ties_in_the_prompt_do_not_bend_the_output() -> None:
    """All prompts alike: the output is drawn from its whole marginal."""
    prompt, output = np.full(1000, 7), np.arange(1000)
    drawn = fit_table(prompt, output, num_bins=20, about={}).sample(stream(1, "test"), 50_000)
    assert set(drawn[0]) == {7}
    assert ks_distance(drawn[1], output) < 0.015


def test_quantiles_of_whole_numbers() -> None:
    assert quantiles(np.array([3, 3, 3]), GRID).tolist() == [3.0] * len(GRID)
    assert (GRID[0], GRID[-1]) == (0.0, 1.0)
    assert (np.diff(GRID) > 0).all()


def test_write_is_the_inverse_of_read(tmp_path: Path) -> None:
    table = read_table(TABLES["azure2023_code"])
    write_table(table, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_text() == TABLES["azure2023_code"].read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs the columns"),
        ("probability,prompt\n0,1\n1,2\n", "needs the columns"),
        ("probability,prompt,output_1\n0,1,1\n", "two rows"),
        ("probability,prompt,output_1\n0,1,1\n1,x,1\n", ":3: could not convert"),
        ("probability,prompt,output_1\n0,1,1\n1,2\n", ":3: 2 cells, the header has 3"),
        ("probability,prompt,output_1\n0,1,1\n0.9,2,1\n", "must ascend"),
        ("probability,prompt,output_1\n0,3,1\n1,2,1\n", "must ascend"),
        ("probability,prompt,output_1\n0,-3,1\n1,2,1\n", "must ascend"),
        ("probability,prompt,output_1\n0,nan,1\n1,2,1\n", "must ascend"),
    ],
)
def test_malformed_tables(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=reason):
        read_table(path)
    with pytest.raises(TraceError, match="No such file"):
        read_table(tmp_path / "missing.csv")


def test_the_page_shows_the_tables_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, path in TABLES.items():
        assert length_table_row(name, read_table(path)) in page


@pytest.mark.data
def test_shipped_tables_are_what_the_traces_give(data_folder: Path, tmp_path: Path) -> None:
    for name, table in derive_all(data_folder).items():
        write_table(table, tmp_path / f"{name}.csv")
        assert (tmp_path / f"{name}.csv").read_text() == TABLES[name].read_text(), name
