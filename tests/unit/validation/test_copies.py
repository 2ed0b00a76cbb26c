"""A folder of the same layout under other names, of one device, with a broken row, validates and names that row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hermes_sim.validation.accuracy import validate_folder
from hermes_sim.validation.terminal import render
from tests.unit.measured.folders import attention_rows, gemm_rows, layer_rows, write

MOST_ROWS = 2000


def with_bad_row(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, int]:
    """One cell that is no number, in the middle."""
    broken = table.astype({column: object}).reset_index(drop=True)
    row = len(broken) // 2
    broken.loc[row, column] = "broken"
    return broken, row


def assert_named(folder: Path, file: str, row: int, column: str, device: str) -> None:
    """Everything else is predicted, nothing is of another device."""
    accuracy = validate_folder(folder, "kernels")
    assert accuracy.kernels is not None
    assert set(accuracy.kernels.scored["device"]) == {device}
    report = accuracy.as_dict()
    assert report["kernels"]["rows"]["malformed"] == 1
    assert report["problems"] == [problem for problem in report["problems"] if f"{file} row {row} {column}" in problem]
    assert f"{file} row {row} {column}" in render(accuracy.as_dict())
    assert accuracy.bars


def test_made_up_folder(tmp_path: Path) -> None:
    write(tmp_path, "run7/products_a100.parquet", gemm_rows(12))
    write(tmp_path, "run7/decodes-A100-80GB.parquet", attention_rows(1, 127))
    broken, row = with_bad_row(layer_rows(), "n_embd")
    write(tmp_path, "run7/parts.csv.gz", broken)
    assert_named(tmp_path, "run7/parts.csv.gz", row, "n_embd", "a100_sxm_80gb")


@pytest.mark.data
def test_renamed_copy_of_the_measured_data(data_folder: Path, tmp_path: Path) -> None:
    kernels = data_folder / "kernels"
    chosen = sorted(path for path in kernels.rglob("*.parquet") if path.name.startswith("l40s") and "vllm" in path.name)
    assert chosen
    for number, path in enumerate(chosen):
        table = pd.read_parquet(path).iloc[:MOST_ROWS]
        write(tmp_path, f"kernels/{number:02d}-measured-L40S.parquet", table)
    layers = next(path for path in kernels.rglob("*.csv.gz") if "n_expanded_embd" in pd.read_csv(path, nrows=0))
    broken, row = with_bad_row(pd.read_csv(layers).assign(device="NVIDIA L40S"), "num_tokens")
    write(tmp_path, "kernels/99-other.csv.gz", broken)
    assert_named(tmp_path, "kernels/99-other.csv.gz", row, "num_tokens", "l40s")
