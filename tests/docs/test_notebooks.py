"""Every notebook runs from its first cell to its last, shows what its cells end in, and is kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

from tests.docs.blocks import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return cells


def run_cells(notebook: Path) -> dict[str, Any]:
    """One namespace for all cells; the value of a last expression is drawn as a notebook would draw it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(notebook)):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), f"{notebook.name}, cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{notebook.name}, cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            show(eval(compile(ast.Expression(last.value), f"{notebook.name}, cell {number}", "eval"), namespace))
    return namespace


def show(value: object) -> None:
    for name in ("_repr_png_", "_repr_html_", "__repr__"):
        if hasattr(value, name):
            assert getattr(value, name)()
            return


@pytest.fixture
def no_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Figures are drawn into nothing; files go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    plt.close("all")
    matplotlib.use(before)


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_run"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_kept(notebook: Path) -> None:
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
def test_first_run(no_screen: None) -> None:
    """What its words say about its numbers is so."""
    names = run_cells(REPOSITORY / "notebooks" / "first_run.ipynb")
    assert names["results"].summary["slo"]["met"]
    bottleneck = names["results"].summary["bottleneck"]
    assert (bottleneck["stage"], bottleneck["resource"]) == ("decode", "memory")
    table = names["table"]
    assert table["TTFT p50 (s)"].is_monotonic_decreasing
    slowest = table["TPOT p99 (ms)"]
    assert slowest.iloc[0] < slowest.iloc[1] < slowest.iloc[2]
    assert slowest.iloc[3] == pytest.approx(slowest.iloc[2], rel=0.06), (
        "hardly a prompt is longer than the third budget"
    )
    assert table["ITL p99 (ms)"].is_monotonic_increasing
    assert 5 < table.loc[8192, "ITL p99 (ms)"] / table.loc[256, "ITL p99 (ms)"] < 20
    assert table["goodput (requests/s)"].idxmax() in (512, 2048)
    assert Path("runs/budget-512/requests.parquet").is_file()
