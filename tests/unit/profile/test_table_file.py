from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.core.errors import HermesError
from hermes_sim.profile.columns import FACTS, OPERATORS, columns, key_columns
from hermes_sim.profile.table_file import TableFile, write_whole

COLUMNS = ("m", "kernel", "measured_s")
KEY = ("m", "kernel")


def test_a_saved_row_is_found_again(tmp_path: Path) -> None:
    table = TableFile(tmp_path / "gemm.csv", COLUMNS, KEY)
    table.add({"m": 4, "kernel": "matmul", "measured_s": 1.25e-6})
    table.save()
    again = TableFile(tmp_path / "gemm.csv", COLUMNS, KEY)
    assert again.rows == [{"m": "4", "kernel": "matmul", "measured_s": "1.25e-06"}]
    assert again.holds({"m": 4, "kernel": "matmul"})
    assert not again.holds({"m": 8, "kernel": "matmul"})
    assert not again.holds({"m": 4, "kernel": "other"})


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gemm.csv").write_text("m,n\n1,2\n", encoding="utf-8")
    with pytest.raises(HermesError, match=r"gemm\.csv has other columns"):
        TableFile(tmp_path / "gemm.csv", COLUMNS, KEY)


def test_a_write_that_dies_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gemm.csv"
    write_whole(path, "old")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("operator", [*OPERATORS, *FACTS])
def test_results_are_no_part_of_the_key(operator: str) -> None:
    assert columns(operator)[-4:] == ("measured_s", "fastest_s", "p90_s", "num_repeats")
    assert set(key_columns(operator)) < set(columns(operator))
    assert not {"measured_s", "fastest_s", "p90_s", "num_repeats", "timing"} & set(key_columns(operator))
