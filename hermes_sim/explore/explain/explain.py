"""Why a run, or a request in it, takes the time that it takes; and what would help, by running it again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hermes_sim.analysis.explanation import RunExplanation, explain_run
from hermes_sim.analysis.explanation_request import RequestExplanation, chosen_request, explain_request
from hermes_sim.analysis.results import Results
from hermes_sim.explore.explain.sensitivity import OnDone, Sensitivities, measure_sensitivities
from hermes_sim.explore.explain.sensitivity_text import sensitivities_text
from hermes_sim.explore.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of a run, or of one of its requests; with what would help, where that was measured."""

    run: RunExplanation | None
    request: RequestExplanation | None
    sensitivities: Sensitivities | None

    def as_record(self) -> dict[str, Any]:
        """Ready for JSON: base units, None for what has no value."""
        record: dict[str, Any] = {}
        if self.run is not None:
            record["run"] = asdict(self.run)
        if self.request is not None:
            record["request"] = asdict(self.request)
        if self.sensitivities is not None:
            found = self.sensitivities
            record["sensitivities"] = asdict(found)
            for one, tried in zip(record["sensitivities"]["tried"], found.tried, strict=True):
                one["elasticity"] = {name: tried.elasticity(name) for name in tried.effects}
            record["helps_most"] = None if found.top is None else found.top.name
        cleaned: dict[str, Any] = _finite(record)
        return cleaned

    def __str__(self) -> str:
        texts = [str(one) for one in (self.run, self.request) if one is not None]
        if self.sensitivities is not None:
            texts.append(sensitivities_text(self.sensitivities))
        return "\n\n".join(texts)

    __repr__ = __str__


def explain(
    run: Results | str | Path,
    request: int | str | None = None,
    *,
    sensitivities: bool | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    on_done: OnDone | None = None,
) -> Explanation:
    """Where time goes, what was waited for, what limits; of one request if its number is given, or `slowest`, `median`.

    run: results, or the folder of a saved run. sensitivities: run it again with 10% more of each thing that may matter,
    the same requests each time; by default where no request is asked for. jobs: runs at once, by default as many as
    there are cores. Raises HermesError if the folder is not a run, if there is no such request, or if it did not
    finish.
    """
    results = run if isinstance(run, Results) else Results.load(run)
    if sensitivities is None:
        sensitivities = request is None
    number = chosen_request(results, request) if isinstance(request, str) else request
    of_request = None if number is None else explain_request(results, number)
    found = explain_run(results) if request is None or sensitivities else None
    measured = None
    if sensitivities:
        measured = measure_sensitivities(results, found=found, workers=workers, jobs=jobs, on_done=on_done)
    return Explanation(found if request is None else None, of_request, measured)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
