"""`hermes-sim validate`: exit status, files written whole or not at all, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hermes_sim.cli import main
from tests.unit.measured.folders import gemm_rows, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "data/kernels/h100_sxm_vllm_gemm.parquet", gemm_rows(8).assign(n=[64 * i for i in range(9, 17)]))
    return tmp_path / "data"


def run(*arguments: str) -> int:
    """Exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["validate", *arguments])
    return int(ended.value.code or 0)


def test_report_and_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    assert run("--data", str(folder), "--only", "kernels", "--json", str(report), "--html", str(page)) == 0
    shown = capsys.readouterr().out
    assert "8 rows in 1 files, 8 predicted" in shown
    assert json.loads(report.read_text())["kernels"]["rows"]["predicted"] == 8
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "report.html", "report.json"]


def test_a_report_is_shown_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same text and the same page as of the comparison itself."""
    report, first, second = (tmp_path / name for name in ("report.json", "first.html", "second.html"))
    assert run("--data", str(folder), "--only", "kernels", "--json", str(report), "--html", str(first)) == 0
    shown = capsys.readouterr().out
    assert run("--report", str(report), "--html", str(second)) == 0
    assert capsys.readouterr().out == shown
    assert second.read_text() == first.read_text()


def test_the_folder_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_DATA", str(folder))
    assert run("--only", "gemm", "--quiet") == 0


def test_a_bar_that_regresses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "baseline.json"
    report = tmp_path / "report.json"
    assert run("--data", str(folder), "--only", "kernels", "--json", str(report), "--quiet") == 0
    bars = [bar for bar in json.loads(report.read_text())["bars"] if bar["value"]]
    assert bars
    arguments = ("--data", str(folder), "--only", "kernels", "--quiet", "--gate", "--baseline", str(baseline))
    baseline.write_text(json.dumps({"bars": bars}))
    assert run(*arguments) == 0
    baseline.write_text(json.dumps({"bars": [{**bar, "value": bar["value"] / 2} for bar in bars]}))
    assert run(*arguments) == 1
    assert f"worse than its baseline: {bars[0]['name']}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no/such/folder"], "no folder of measured data at 'no/such/folder'"),
        (["--json", "no/such/folder/report.json"], "there is no folder"),
        (["--json", "/proc/report.json"], "cannot be written"),
        (["--report", "no/such/report.json"], "cannot be read"),
        (["--report", "no/such/report.json", "--only", "gemm"], "no --data, --only or --json with it"),
        (["--gate", "--baseline", "no/such/baseline.json"], "no baseline"),
    ],
)
def test_wrong_input_is_told_before_the_work(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [] if {"--data", "--report"} & set(arguments) else ["--data", str(folder)]
    assert run(*data, *arguments) == 2
    assert message in capsys.readouterr().err
