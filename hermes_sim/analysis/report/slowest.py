"""The slowest requests, each with its way through the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.human import count
from hermes_sim.analysis.picture import PART_COLORS, PART_PATTERNS
from hermes_sim.analysis.report.chart import COLORS, Chart, Trace, axis, hatched, numbers
from hermes_sim.analysis.report.latency import ROW_HEIGHT

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

NUM_SLOWEST = 10
PATTERNS = ("", "x", "-", "+", "|", ".", "\\")


def slowest_chart(results: Results) -> Chart | None:
    """Lanes of the requests with the longest E2E: when they waited, and for which stage they were served."""
    requests = results.measured_requests
    requests = requests[is_finished(requests)].nlargest(NUM_SLOWEST, "e2e_s")
    if requests.empty:
        return None
    labels = {
        int(row["request"]): f"#{row['request']} · {count(row['num_prompt_tokens'])} in, "
        f"{count(row['num_output_tokens'])} out"
        for _, row in requests.iterrows()
    }
    arrival_s = dict(zip(labels, floats(requests, "arrival_s"), strict=True))
    visits = results.visits[results.visits["request"].isin(list(labels)) & results.visits["finish_s"].notna()]
    visits = visits[visits["engine"] != ""]
    rows = [labels[int(number)] for number in visits["request"]]
    begin_s = np.array([arrival_s[int(number)] for number in visits["request"]])
    came_s = floats(visits, "arrival_s") - begin_s
    waited_s = np.maximum(floats(visits, "finish_s") - begin_s - came_s - floats(visits, "service_s"), 0.0)
    moved_s = floats(visits, "transfer_s") + floats(visits, "tokenize_s")
    traces = [
        _lane("transfer", came_s - moved_s, moved_s, rows, PART_COLORS["transfer"], PART_PATTERNS["transfer"]),
        _lane("queue", came_s, waited_s, rows, PART_COLORS["queue"], PART_PATTERNS["queue"]),
    ]
    stages = [str(stage) for stage in dict.fromkeys(visits["stage"])]
    of_stage = visits["stage"].astype(str).to_numpy()
    for place, stage in enumerate(stages):
        chosen = of_stage == stage
        traces.append(_lane(
            stage, (came_s + waited_s)[chosen], floats(visits, "service_s")[chosen],
            [row for row, use in zip(rows, chosen, strict=True) if use],
            COLORS[place % len(COLORS)], PATTERNS[place % len(PATTERNS)],
        ))  # fmt: skip
    layout = {
        "barmode": "overlay",
        "xaxis": axis("time since arrival (s)", range=[0.0, 1.02 * float(requests["e2e_s"].max())]),
        "yaxis": {"autorange": "reversed", "automargin": True, "categoryarray": list(labels.values())},
    }
    caption = "time in no step is drawn before the service of a visit, wherever in it it fell."
    kept = [trace for trace in traces if any(trace["x"])]
    return Chart("slowest-requests", "Slowest requests:", caption, kept, layout, height=120 + ROW_HEIGHT * len(labels))


def _lane(name: str, start: np.ndarray, length: np.ndarray, rows: list[str], color: str, pattern: str) -> Trace:
    return {
        "type": "bar", "orientation": "h", "name": name, "base": numbers(start), "x": numbers(length), "y": rows,
        "marker": hatched(color, pattern),
        "hovertemplate": f"{name}: %{{x:.3~s}}s from %{{base:.3~s}}s<extra>%{{y}}</extra>",
    }  # fmt: skip
