"""Replays as rows: what counts in means, what is only counted."""

from __future__ import annotations

from hermes_sim.replay.experiment import Comparison, Replays, Unexpressed
from hermes_sim.validation.accuracy import summed_up
from hermes_sim.validation.serving import score
from hermes_sim.validation.terminal import render


def compared(row: str, predicted: float, *, left_out: str | None = None, measured: float = 1.0) -> Comparison:
    labels = {"device": "h100_sxm", "model": "llama_3_1_8b", "engine": "vllm", "rate": "2"}
    return Comparison("serving/a.csv", row, "e2e_mean_s", measured, predicted, labels, "held_out", left_out=left_out)


REPLAYS = Replays(
    (compared("1", 1.1), compared("2", 0.9), compared("3", 9.0, left_out="overload"), compared("4", 1.0, measured=0.0)),
    (Unexpressed("serving/a.csv", "5", "no layout"),),
)


def test_rows_left_out_are_counted_with_their_reason() -> None:
    found = score([("stage_rate", REPLAYS)])
    assert len(found.scored) == 2
    reasons = {(record["kind"], record["reason"]) for record in found.reasons()}
    assert reasons == {
        ("not replayed", "no layout"),
        ("replayed, not counted", "overload"),
        ("replayed, not counted", "the measured number is not above zero"),
    }
    (table,) = found.tables()
    assert (table["counted"], table["left_out"], table["not_replayed"]) == (2, 2, 1)


def test_errors_by_label_and_bars() -> None:
    accuracy = summed_up("folder", "serving", None, score([("stage_rate", REPLAYS)]))
    (record,) = accuracy.as_dict()["serving"]["by_rate"]
    assert (record["rate"], record["num_rows"], record["mean_frac"]) == ("2", 2, 0.1)
    bars = {bar.name: bar for bar in accuracy.bars}
    assert bars["stage_rate_e2e"].status == "not met"
    assert bars["per_request_ttft"].status == "no data"
    assert "stage_rate" in render(accuracy.as_dict())


def test_nothing_replayed() -> None:
    accuracy = summed_up("folder", "serving", None, score([]))
    assert accuracy.bars == ()
    assert accuracy.as_dict()["serving"]["rows"]["compared"] == 0
