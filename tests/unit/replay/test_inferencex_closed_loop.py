"""Tables of benchmark_serving runs: the server a row describes, every measured column, and rows that are wrong."""

from __future__ import annotations

from pathlib import Path

from hermes_sim.replay.experiment import replay_folder

HEADER = "model,parallel,isl,osl,concurrency,median_ttft_s,median_tpot_s,median_e2e_s,output_throughput,hardware,server"
GOOD = 'meta-llama/Llama-3.1-8B,tp2,128,16,2,0.02,0.006,0.11,280,2x H100,"vLLM 0.15, TP2"'


def write(folder: Path, *rows: str) -> None:
    (folder / "whatever.csv").write_text("\n".join([HEADER, *rows, ""]))


def test_every_measured_column_is_compared(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    found = replay_folder(tmp_path, only="inferencex").comparisons
    assert {one.metric for one in found} == {"ttft_p50_s", "tpot_p50_s", "e2e_p50_s", "throughput_tokens_per_s"}
    assert {(one.labels["device"], one.labels["engine"], one.labels["tp"]) for one in found} == {
        ("h100_sxm", "vllm", "2")
    }
    predicted = {one.metric: one.predicted for one in found}
    # every request alike: the median answer is a first token and fifteen more
    together = predicted["ttft_p50_s"] + 15 * predicted["tpot_p50_s"]
    assert abs(predicted["e2e_p50_s"] / together - 1.0) < 0.05


def test_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        GOOD.replace("tp2,128", "side by side,128"),
        GOOD.replace("0.006", "fast"),
        GOOD.replace("2x H100", "2x abacus"),
    )
    replays = replay_folder(tmp_path, only="inferencex")
    assert [problem.line for problem in replays.problems] == [2, 3]
    assert "names no degree" in replays.problems[0].message
    assert "median_tpot_s needs a number, got 'fast'" in replays.problems[1].message
    assert [(one.row, "abacus" in one.reason) for one in replays.unexpressed] == [("row 3", True)]
    assert replays.comparisons == ()
