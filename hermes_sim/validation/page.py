"""docs/accuracy.md, its plot and the baseline of bars, from the JSON report of `hermes-sim validate`.

`python -m hermes_sim.validation.page REPORT.json` writes all three; `--only-page` leaves the baseline alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from hermes_sim.validation.bars import asked
from hermes_sim.validation.baseline import BASELINE, baseline_of
from hermes_sim.validation.pictures import COLORS, SIDE_WORDS
from hermes_sim.validation.report import read_report

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "accuracy.md"
PLOT: Final = DOCS / "images" / "accuracy.png"
MOST_REASONS: Final = 25

_INTRODUCTION: Final = """\
# Accuracy

Generated: `hermes-sim validate --json report.json`, then `python -m hermes_sim.validation.page report.json`. Figures
are those of the folder of measured data that the repository is calibrated on; `hermes-sim validate --data FOLDER` gives
them for another one of the same layout, whatever its files, devices and models are called.

An error is |predicted - measured| / measured. **Fitted** rows may have given coefficients; rows **kept out** are in no
fit, by a checksum of the shape (one in five), by model, or by kind of run (`hermes_sim/calibration/split.py`);
**device not fitted**: the coefficients were taken over from another device. Only the last two say what a prediction of
something new is worth. Of closed loops with prefill and decode in engines of their own nothing was ever fitted; their
models' kernels and aggregated runs were. Bars are judged on rows kept out. A row that cannot be expressed is counted
below with the reason, never dropped. A kernel is predicted as its benchmark ran it, with weights left in the L2 by the
call before; served runs price them cold. Forms of models were at times chosen with errors of kept-out rows in sight:
only data that nobody here has seen can say how much of these figures is owed to that.
"""

_PEERS: Final = """\
## Beside other simulators

Their figures are on the data they were shown with, their own tables of the very card included; ours are on rows kept
out of every fit.

| what | others | here |
|---|---|---|
"""
_PEER_ROWS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (
        "vLLM per request, one card, means of TTFT / TPOT / E2E",
        "LLMServingSim 2: 4.0 / 1.0 / 1.8% (dense model), 13.6 / 1.7 / 2.2% (experts)",
        ("per_request_ttft", "per_request_tpot", "per_request_e2e"),
    ),
    (
        "stage-rate runs, median of E2E / TTFT / ITL",
        "BLIS, fitted on such runs: 6.7 / 17.6 / 7.1%",
        ("stage_rate_e2e", "stage_rate_ttft", "stage_rate_itl"),
    ),
    (
        "closed loop, aggregated, mean TPOT / TTFT",
        "AIConfigurator: 26 / 52%",
        ("closed_aggregated_tpot", "closed_aggregated_ttft"),
    ),
    (
        "closed loop, disaggregated, mean TPOT / TTFT",
        "AIConfigurator: 42 / 68%",
        ("closed_disaggregated_tpot", "closed_disaggregated_ttft"),
    ),
    ("all means of recorded runs", "the followed paper: below 6%", ("disparity",)),
    ("share of measurements inside 90% bands", "no other has bands", ("bands_kernels", "bands_serving")),
)

_FORMAT: Final = """\
## The JSON report

`hermes-sim validate --json FILE` writes one object; fractions, seconds, no rounding beyond five digits.
`hermes-sim validate --report FILE` shows it again, with `--html PAGE` as a page;
`python -m hermes_sim.validation.served_bands FILE` makes the bands of served latencies from it. Its keys:

| key | holds |
|---|---|
| `format`, `version`, `folder`, `only` | version of this format and of the program; what was asked for |
| `bars` | name, what, statistic, limit, value, rows, status (`met`, `not met`, `no data`), reason |
| `kernels.rows` | present, expressible, predicted, malformed; `kernels.files`: files read |
| `kernels.by_operator`, `by_device`, `by_dtype`, `by_model`, `by_engine`, `by_timing`, `by_table` | records of errors |
| `kernels.tables` | each file and operator: rows, predicted, unexpressed |
| `kernels.unexpressed`, `serving.unexpressed` | reason and number of rows without a prediction or in no mean |
| `kernels.worst`, `serving.worst` | rows furthest off: file, row, shape or labels, error, what is special about it |
| `kernels.points` | operator, side: seconds measured and predicted of up to 600 rows, for plots |
| `unseen` | fitted devices priced with another device's coefficients and their own datasheet |
| `layers` | parts of a layer summed, by device and model |
| `serving.rows` | compared, left_out, not_replayed, malformed |
| `serving.by_experiment`, `by_device`, `by_model`, `by_engine`, `by_concurrency`, ... | records of errors |
| `serving.runs` | every replayed run: experiment, table, row, side, labels (device, model, engine, ...), `left_out` \
if it counts in no mean; `metrics`: name -> measured, predicted, and both ends of its band if it has one |
| `problems`, `num_problems` | malformed files and rows, named |

A record of errors: the keys it is grouped by, `side` (`fitted`, `held_out`, `unseen_device`), `num_rows`, `mean_frac`,
`median_frac`, `p90_frac`, `bias_frac` (mean of predicted / measured - 1), `num_in_bands` (rows that have a 90% band)
and `in_band_frac` (the share of their measurements inside).
"""


def page_text(report: dict[str, Any]) -> str:
    """The whole page."""
    bars = {bar["name"]: bar for bar in report["bars"]}
    parts = [_INTRODUCTION, "## Bars\n", _bars(report["bars"]), _PEERS.rstrip("\n"), _peers(bars)]
    kernels, serving = report.get("kernels"), report.get("serving")
    if kernels is not None:
        rows = kernels["rows"]
        parts += [
            "## Kernels\n",
            f"{rows['present']:,} rows in {kernels['files']} files, {rows['predicted']:,} of them predicted, "
            f"{rows['malformed']} malformed.\n",
            "![Mean error of each operator on both sides of the split](images/accuracy.png)\n",
            _errors(("operator",), kernels["by_operator"]),
            "Rows kept out, and devices that were not fitted:\n",
            _errors(("operator", "device"), _not_fitted(kernels["by_device"])),
            "Rows kept out, by engine:\n",
            _errors(("operator", "engine"), _not_fitted(kernels["by_engine"])),
        ]
        if report.get("unseen"):
            parts += [
                "Fitted devices as if never measured: the coefficients of `donor_device`, their own datasheet.\n",
                _errors(("operator", "device", "donor_device", "donor"), report["unseen"]),
            ]
        if report.get("layers"):
            parts += ["Layers of models (parts summed):\n", _errors(("device", "model", "timing"), report["layers"])]
    if serving is not None:
        rows = serving["rows"]
        parts += [
            "## Served runs\n",
            f"{rows['compared']:,} numbers compared; {rows['left_out']:,} replayed and counted in no mean; "
            f"{rows['not_replayed']:,} rows not replayed.\n",
            _errors(("experiment", "metric"), serving["by_experiment"]),
            "By model:\n",
            _errors(("experiment", "metric", "model"), _means(serving["by_model"])),
        ]
    parts += ["## Rows in no mean, and why\n", _reasons(kernels, serving), _FORMAT]
    return "\n".join(parts)


def plot(report: dict[str, Any], path: Path) -> None:
    """PNG of the mean error by operator, both sides; the same bytes for the same report."""
    from matplotlib.figure import Figure

    records = report["kernels"]["by_operator"]
    operators = sorted({record["operator"] for record in records})
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    axis = figure.subplots()
    for place, (side, color) in enumerate(COLORS.items()):
        means = {record["operator"]: 100.0 * record["mean_frac"] for record in records if record["side"] == side}
        at = [index + 0.27 * (place - 1) for index, name in enumerate(operators) if name in means]
        axis.bar(at, [means[name] for name in operators if name in means], 0.25, color=color, label=SIDE_WORDS[side])
    axis.set_yscale("symlog", linthresh=20.0)
    axis.set_ylabel("mean absolute error [%]")
    axis.set_xticks(range(len(operators)), [name.replace("_", "\\n", 1) for name in operators], fontsize=6)
    axis.legend(fontsize=7)
    axis.grid(axis="y", linewidth=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _bars(bars: Iterable[dict[str, Any]]) -> str:
    rows = ["| bar | statistic | rows | reached | asked | | why not |", "|---|---|---:|---:|---:|---|---|"]
    for bar in bars:
        reached = "" if bar["value"] is None else f"{bar['value']:.1%}"
        rows.append(
            f"| {bar['what']} | {bar['statistic']} | {bar['rows']:,} | {reached} | {asked(bar)} | "
            f"{bar['status']} | {bar['reason']} |"
        )
    return "\n".join(rows) + "\n"


def _peers(bars: dict[str, dict[str, Any]]) -> str:
    rows = []
    for what, others, names in _PEER_ROWS:
        values = [bars.get(name, {}).get("value") for name in names]
        here = " / ".join("no data" if value is None else f"{value:.1%}" for value in values)
        rows.append(f"| {what} | {others} | {here} |")
    return "\n".join(rows) + "\n"


def _errors(keys: Sequence[str], records: Iterable[dict[str, Any]]) -> str:
    heads = [*keys, "side", "rows", "mean", "median", "p90", "bias", "in band"]
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * (len(keys) + 1) + "---:|" * 6]
    for record in records:
        band = record["in_band_frac"]
        cells = [str(record[key]) for key in keys]
        cells += [SIDE_WORDS.get(record.get("side", ""), ""), f"{record['num_rows']:,}"]
        cells += [f"{record[name]:.1%}" for name in ("mean_frac", "median_frac", "p90_frac")]
        cells += [f"{record['bias_frac']:+.1%}", "" if band is None else f"{band:.0%}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _not_fitted(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["side"] != "fitted"]


def _means(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means only: quantiles are in the JSON report."""
    return [record for record in records if not any(mark in record["metric"] for mark in ("_p50_", "_p90_", "_p99_"))]


def _reasons(*parts: dict[str, Any] | None) -> str:
    records = [record for part in parts if part is not None for record in part["unexpressed"]]
    records.sort(key=lambda record: -int(record["rows"]))
    rows = ["| what | reason | rows |", "|---|---|---:|"]
    for record in records[:MOST_REASONS]:
        rows.append(f"| {record.get('operator', record.get('experiment'))} | {record['reason']} | {record['rows']:,} |")
    rest = records[MOST_REASONS:]
    if rest:
        rows.append(f"| {len(rest)} more | in the JSON report | {sum(record['rows'] for record in rest):,} |")
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page, the plot and the baseline."""
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.validation.page", description=main.__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--only-page", action="store_true", help="leave the baseline alone")
    chosen = parser.parse_args(arguments)
    report = read_report(chosen.report)
    PAGE.write_text(page_text(report), encoding="utf-8")
    if "kernels" in report:
        plot(report, PLOT)
    if not chosen.only_page:
        BASELINE.write_text(baseline_of(report), encoding="utf-8")


if __name__ == "__main__":
    main()
