"""The command line: what it prints where, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hermes_sim import __version__, cli, run
from hermes_sim.analysis.results import Results
from hermes_sim.core.errors import ConfigError, HermesError, Problem, SimulationError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.scenario import Scenario
from tests import scenarios
from tests.unit.analysis.conftest import table, tables

__all__ = ["tables"]

REPOSITORY = Path(__file__).resolve().parents[2]
Command = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: RunTables) -> Path:
    """A working directory with a cluster and a workload; the simulation itself is replaced by finished tables."""
    cluster = scenarios.cluster(scenarios.llm(), scenarios.workers(["embed", "retrieve"]))
    workload = scenarios.workload(*scenarios.RAG, slo={"ttft": {"p50": "3 s"}})
    (tmp_path / "box.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))
    (tmp_path / "rag.yaml").write_text(yaml.safe_dump(workload, sort_keys=False))

    def finished(*_: object, progress: Callable[[float, int, int], None] | None = None, **__: object) -> RunTables:
        if progress is not None:
            progress(10.0, 5, 5)
        return tables

    monkeypatch.setattr(run, "simulate_scenario", finished)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hermes_sim(*arguments: str) -> int:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


MAIN_JOB = ("--cluster", "box.yaml", "--workload", "rag.yaml")


def test_the_main_job_prints_a_summary_and_saves_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim(*MAIN_JOB) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("test · 8 x NVIDIA A100")
    assert any(line.startswith("simulated          4 of 5 requests · 10.0 s in ") for line in lines)
    assert any(line.startswith("  TTFT ") and line.endswith("p50 <= 3 s met") for line in lines)
    (saved,) = (line for line in lines if line.startswith("saved"))
    assert saved.startswith(f"saved {Path('runs', 'test-1')} (report.html, requests.parquet, ")
    assert max(map(len, lines)) <= 80
    assert err == ""
    assert Results.load(folder / "runs" / "test-1").summary["requests"]["num"] == 5


def test_folders_are_numbered_or_named(folder: Path) -> None:
    hermes_sim(*MAIN_JOB, "--quiet")
    hermes_sim(*MAIN_JOB, "--quiet")
    hermes_sim(*MAIN_JOB, "--quiet", "--out", "elsewhere/mine")
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["test-1", "test-2"]
    assert (folder / "elsewhere" / "mine" / "summary.json").is_file()


def test_quiet_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim(*MAIN_JOB, "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_json_prints_only_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim(*MAIN_JOB, "--json", "--out", "here") == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert err == ""
    assert printed.pop("run_folder") == "here"
    assert printed == json.loads((folder / "here" / "summary.json").read_text())


def test_options_reach_the_scenario(folder: Path) -> None:
    hermes_sim(
        *MAIN_JOB, "-q", "--out", "here", "--seed", "7", "--exact-steps",
        "--set", "workload.traffic.num_requests=9", "--set", "cluster.pue=1.5",
    )  # fmt: skip
    scenario = Results.load(folder / "here").scenario
    assert (scenario.seed, scenario.exact_steps) == (7, True)
    assert scenario.workload.traffic.num_requests == 9
    assert scenario.cluster.pue == 1.5


def test_steps_are_printed_and_saved(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tables: RunTables
) -> None:
    recorded = replace(
        tables,
        steps=table("steps", [{"engine": "llm[0]", "step": step, "end_s": 0.5, "num_tokens": 7} for step in range(30)]),
        decisions=table("decisions", [{"engine": "llm[0]", "request": 3, "kind": "scheduled", "amount": 7}]),
    )
    asked: list[bool] = []

    def finished(scenario: Scenario, *, steps: bool, **_: object) -> RunTables:
        asked.append(steps and scenario.exact_steps)
        return recorded

    monkeypatch.setattr(run, "simulate_scenario", finished)
    assert hermes_sim(*MAIN_JOB, "--steps", "--out", "here") == 0
    assert asked == [True], "steps are recorded with one event per step"
    out = capsys.readouterr().out
    assert "\nsteps (20 of 30)\n" in out
    assert " ".join(out.split()).endswith("steps.parquet, decisions.parquet, ...) why hermes-sim explain here")
    loaded = Results.load(folder / "here")
    assert loaded.steps is not None
    assert loaded.decisions is not None
    assert len(loaded.steps) == 30
    assert list(loaded.decisions["request"]) == [3]
    assert hermes_sim(*MAIN_JOB, "--steps", "--replications", "2") == 2
    assert capsys.readouterr().err == "error: steps are recorded of one run: leave out replications, or steps\n"


def test_a_plugin_is_named_as_a_module(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("--plugin", "policies/mine.py", "list", "policies") == 2
    assert capsys.readouterr().err == (
        "error: --plugin policies/mine.py: needs the name of a module, as `import` takes it, not of a file: "
        "--plugin mine\n"
    )


def test_a_saved_run_runs_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hermes_sim(*MAIN_JOB, "-q", "--out", "first", "--seed", "7")
    assert hermes_sim("--scenario", "first", "-q", "--out", "second") == 0
    assert (folder / "first" / "scenario.yaml").read_bytes() == (folder / "second" / "scenario.yaml").read_bytes()
    assert hermes_sim("--scenario", "first/scenario.yaml", "-q", "--out", "third", "--set", "cluster.pue=1.5") == 0
    scenario = Results.load(folder / "third").scenario
    assert (scenario.seed, scenario.cluster.pue) == (7, 1.5)
    assert hermes_sim("--scenario", "first", "--cluster", "box.yaml") == 2
    assert "--scenario stands instead of --cluster and --workload" in capsys.readouterr().err


def test_output_that_goes_nowhere_is_an_error_not_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hermes_sim.analysis.render.header", full)
    assert hermes_sim(*MAIN_JOB) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"
    assert not (folder / "runs").exists()


def test_replications_run_consecutive_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim(*MAIN_JOB, "--replications", "3", "--out", "here") == 0
    assert "over 3 seeds" in capsys.readouterr().out
    replications = Results.load(folder / "here").replications
    assert replications is not None
    assert list(replications["seed"]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cluster", "box.yaml", "--workload", "rag.yml"), "error: no workload 'rag.yml' here or in the library."),
        (("--cluster", "box.yaml"), "error: --workload is missing (hermes-sim list workloads)"),
        ((*MAIN_JOB, "--set", "cluster.engines.llm.replicsa=2"), "Did you mean 'replicas'?"),
        ((*MAIN_JOB, "--out", "box.yaml"), "error: --out box.yaml: exists and is not a folder"),
        ((*MAIN_JOB, "--out", "."), "error: --out .: holds"),
        (("define", "tfft"), "error: no definition of 'tfft'. Did you mean 'TTFT'?"),
        (("show", "a100_sxm_80gb"), "error: 'a100_sxm_80gb' is not KIND/NAME"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_run_or_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    def never(*_: object, **__: object) -> RunTables:
        raise AssertionError("must not run")

    monkeypatch.setattr(run, "simulate_scenario", never)
    before = sorted(folder.iterdir())
    assert hermes_sim(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_several_problems_are_aligned_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [Problem("c.yaml", 9, "engines[0].name", "is odd"), Problem("c.yaml", 12, "pue", "must be >= 1")]

    def refuse(*_: Any, **__: Any) -> None:
        raise ConfigError(problems)

    monkeypatch.setattr("hermes_sim.scenario.load.load_scenario", refuse)
    assert hermes_sim(*MAIN_JOB) == 2
    assert capsys.readouterr().err.splitlines() == [
        "c.yaml:9   engines[0].name  is odd",
        "c.yaml:12  pue              must be >= 1",
        "2 problems, nothing was run",
    ]


def test_problems_without_a_place_are_not_indented(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("--cluster", "nowhere", "--workload", "nothing") == 2
    assert [line.split("'")[0] for line in capsys.readouterr().err.splitlines()] == [
        "no cluster ", "no workload ", "2 problems, nothing was run",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (SimulationError("request 3 waits for KV blocks"), 2, "error: request 3 waits for KV blocks"),
        (KeyboardInterrupt(), 130, "interrupted, nothing was written"),
    ],
)
def test_a_run_that_stops_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    error: BaseException, status: int, message: str,
) -> None:  # fmt: skip
    def stop(*_: object, **__: object) -> RunTables:
        raise error

    monkeypatch.setattr(run, "simulate_scenario", stop)
    assert hermes_sim(*MAIN_JOB) == status
    assert capsys.readouterr().err.strip() == message
    assert not (folder / "runs").exists()


def test_ctrl_c_while_saving_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hermes_sim.analysis.run_folder._put_in_place", stop)
    assert hermes_sim(*MAIN_JOB, "-q") == 130
    assert list((folder / "runs").iterdir()) == []


def test_the_bar_shows_requests_and_simulated_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich: take any stream for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    with cli._progress(True) as progress:
        assert progress is not None
        progress(501.0, 2000, 2000)
    shown = capsys.readouterr().err
    assert "2000/2000" in shown
    assert "8 min 21 s simulated" in shown


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim() == 2
    assert "--cluster FILE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("--version") == 0
    assert capsys.readouterr().out == f"hermes-sim {__version__}\n"


def test_check_names_the_problems_or_says_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("check", "box.yaml", "rag.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "box.yaml  ok  sources: kernels of a100_sxm_80gb fitted, kernels of epyc_7742 estimate",
        "              weakest source of any number: estimate",
    ]
    assert lines[2].startswith("rag.yaml  ok")
    text = (folder / "box.yaml").read_text()
    (folder / "box.yaml").write_text(text.replace("tp:", "tpp:").replace("placement:", "placment:"))
    assert hermes_sim("check", "box.yaml", "rag.yaml") == 2
    err = capsys.readouterr().err
    assert "Did you mean 'placement'?" in err


def test_list_show_and_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("list", "devices") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["source", "of:", "peak", "bandwidth", "kernels"]
    (row,) = (row for row in rows if row.startswith("a100_sxm_80gb "))
    assert row[head.index("kernels") :] == "fitted"
    assert hermes_sim("show", "device/a100_sxm_80gb") == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "a100_sxm_80gb"
    assert hermes_sim("schema", "cluster") == 0
    assert "engines" in json.loads(capsys.readouterr().out)["properties"]


def test_define_one_word_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert hermes_sim("define", "ttft") == 0
    one = capsys.readouterr().out
    assert one.startswith("TTFT\n  Time to first token: first_token_s - arrival_s")
    assert hermes_sim("define") == 0
    assert one in capsys.readouterr().out


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
    "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 2048, "torch_dtype": "bfloat16", "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
"""The shape of TinyLlama-1.1B."""


def test_import_model_writes_a_model_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert hermes_sim("import-model", "config.json", "--name", "tiny", "--out", "tiny.yaml") == 0
    assert yaml.safe_load((folder / "tiny.yaml").read_text())["num_layers"] == 22
    assert hermes_sim("check", "tiny.yaml") == 0
    assert hermes_sim("import-model", "config.json", "--out", "tiny.yaml") == 2
    assert "exists already" in capsys.readouterr().err


def test_help_is_fast_and_python_m_is_the_command() -> None:
    def cpu_seconds() -> float:
        """Not of the wall: other tests run beside."""
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "hermes_sim", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert "--workload FILE" in done.stdout
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu_seconds() for _ in range(3)) < 0.5


def test_errors_of_the_library_never_end_the_process() -> None:
    with pytest.raises(HermesError):
        run.simulate("no_such_cluster", "no_such_workload")
