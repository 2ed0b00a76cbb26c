from __future__ import annotations

import csv
import json
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hermes_sim.cli import app
from hermes_sim.core.errors import TraceError
from hermes_sim.measured import read_kernels
from hermes_sim.profile import shapes
from hermes_sim.profile.columns import OPERATORS, columns
from hermes_sim.profile.command import budget_seconds, main
from hermes_sim.profile.request_trace import read_trace

SMALL = {
    "CPU_ROWS": (1, 4),
    "CPU_WEIGHTS": ((64, 32), (32, 64)),
    "CPU_HEADS": ((2, 1, 16),),
    "CPU_EXPERTS": ((16, 32, 4, 2),),
    "STREAM_ROWS": (1, 4),
    "STREAM_WIDTHS": (64, 128, 256),
    "CPU_FLOPS": 1e6,
}


@pytest.fixture
def small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(shapes, name, value)
    for name in ("COPY_BYTES", "THREAD_BYTES"):
        monkeypatch.setattr(f"hermes_sim.profile.machine_facts.{name}", (4096, 16384))
    monkeypatch.setattr("hermes_sim.profile.case.ROTATED_CACHES", 1e-3)
    monkeypatch.setattr("hermes_sim.profile.session.REPEATS_BUDGET_S", 1e-3)
    monkeypatch.setattr("hermes_sim.profile.machine_facts.REPEATS_BUDGET_S", 1e-3)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("small_shapes")
@pytest.mark.parametrize("arguments", [["cpu"], ["gpu", "--device", "cpu"]])
def test_all_tables_are_written_once(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*arguments, "--out", str(tmp_path), "--name", "my_cpu", "--budget", "60s"]
    assert main(command) == 0
    tables = {path.stem: rows_of(path) for path in tmp_path.rglob("*.csv")}
    fact = "threads" if arguments == ["cpu"] else "launch"
    assert {"gemm", "attention_prefill", "attention_decode", "moe", "stream", "copy", fact} <= set(tables)
    for operator, rows in tables.items():
        assert tuple(rows[0]) == columns(operator)
        assert {row["device"] for row in rows} == {"my_cpu"}
        assert all(0.0 < float(row["fastest_s"]) <= float(row["measured_s"]) < 10.0 for row in rows)
    read = read_kernels(tmp_path)
    assert read.problems == ()
    assert {operator: len(table) for operator, table in read.items()} == {
        operator: len(rows) for operator, rows in tables.items() if operator in OPERATORS
    }
    provenance = json.loads((tmp_path / f"provenance_{arguments[0]}.json").read_text(encoding="utf-8"))
    assert provenance["rows"] == {operator: len(rows) for operator, rows in tables.items()}
    assert provenance["not_measured"] == []
    assert platform.node() not in json.dumps(provenance)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("0 measured")
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before


def test_the_engine_writes_its_requests_and_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n0,20,3\n0.01,5,1\n0.02,9,4\n", encoding="utf-8")
    out = tmp_path / "out"
    command = ["engine", "--device", "cpu", "--model", "tiny", "--trace", str(trace), "--out", str(out)]
    assert main([*command, "--max-num-seqs", "2"]) == 0
    assert "3 of 3 requests" in capsys.readouterr().out
    folder = out / "serving" / "reference_loop_eager"
    requests, steps = rows_of(folder / "requests.csv"), rows_of(folder / "steps.csv")
    assert [row["output_tokens"] for row in requests] == ["3", "1", "4"]
    for row in requests:
        assert float(row["ttft_s"]) == pytest.approx(float(row["first_token_s"]) - float(row["arrival_s"]))
        assert (row["tpot_s"] == "") == (row["output_tokens"] == "1")
    assert sum(int(row["num_prefill_tokens"]) for row in steps) == 34
    description = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert (description["num_finished"], description["not_started_in_budget"]) == (3, 0)
    assert main(command) == 0
    assert "nothing left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s,num_prompt_tokens\n0,1\n", ":1: has no column num_output_tokens"),
        ("arrival_s,num_prompt_tokens,num_output_tokens\n0,1,1\n1,x,1\n", ":3: invalid literal"),
        ("arrival_s,num_prompt_tokens,num_output_tokens\n0,0,1\n", ":2: arrival_s has to be"),
        ("arrival_s,num_prompt_tokens,num_output_tokens\n", "has no requests"),
    ],
)
def test_a_bad_trace_is_named_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TraceError, match=message):
        read_trace(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cpu", "--budget", "5lightyears"], "--budget 5lightyears"),
        (["cpu", "--budget", "0 s"], "needs a time above 0"),
        (["engine", "--device", "cpu", "--model", "tny"], "Did you mean 'tiny'?"),
        (["engine", "--device", "cpu", "--rate", "0"], "--rate has to be above 0"),
        (["engine", "--device", "cpu", "--max-num-seqs", "9", "--max-num-batched-tokens", "4"], "--max-num-seqs"),
        (["engine", "--device", "cpu", "--trace", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
@pytest.mark.parametrize("kind", ["gpu", "engine"])
def test_without_pytorch_a_gpu_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([kind, "--out", str(tmp_path / "out")]) == 2
    assert "needs PyTorch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_plain_command_needs_neither_pydantic_nor_typer() -> None:
    heavy = {"pydantic", "typer", "pandas", "simpy", "numba"}
    code = f"import sys, hermes_sim.profile.command; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_budgets() -> None:
    assert (budget_seconds("5min"), budget_seconds("90 s")) == (300.0, 90.0)


@pytest.mark.usefixtures("small_shapes")
def test_the_command_of_the_simulator_is_the_same(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["profile", "cpu", "--out", str(tmp_path), "--budget", "1 ms"])
    assert result.exit_code == 0
    assert "not reached in the budget" in result.output
    assert (tmp_path / "provenance_cpu.json").exists()
