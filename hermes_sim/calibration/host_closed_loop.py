"""Front-end and host terms of an engine from closed-loop serving tables, with all kernels frozen.

Three numbers an engine, the same on every device: the device's time between the layers of two steps (inputs, metadata,
sampled tokens: scheduling ahead does not hide it), and what client, HTTP server and tokeniser take of a request and of
each of its prompt tokens. Each run is simulated without them; a step that lasts longer by t makes every token later by
t, and a request that waits longer by t its first one. Fitted to the logarithm of TPOT and TTFT, robustly, on the models
that replay/split.py lists. Servers that compile kernels while the first requests wait are off by seconds: of TTFT,
errors far out count for nothing (Cauchy's loss).

`python -m hermes_sim.calibration.host_closed_loop FOLDER` prints the terms of every engine, and errors on both sides.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, summarize
from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.closed_loop import READER, replay_run
from hermes_sim.replay.closed_loop_host import NO_TERMS, HostTerms
from hermes_sim.replay.closed_loop_models import UnknownModelError, is_fitted, shape_of
from hermes_sim.replay.closed_loop_setup import SetupError, preset_of
from hermes_sim.replay.silicon_drafts import drafting_rows
from hermes_sim.replay.silicon_table import ServingRun, read_silicon_table
from hermes_sim.replay.split import FITTED_CLOSED_LOOP_MODES

FloatArray = npt.NDArray[np.float64]

MOST_USERS: Final = 64
"""Above it queues, KV capacity and chunking decide, not the host."""

MOST_OUTPUT_TOKENS: Final = 2048
"""Longer answers say the same of a step, in more time."""

MEAN_LENGTH_FRAC: Final = 0.9
"""Mean prompt of a run whose lengths are drawn, by nominal length."""

ROBUST_SCALE: Final = 0.1
"""Relative error of TPOT from which a row counts less."""

STALL_SCALE: Final = 0.15
"""Relative error of TTFT from which a row counts less and less."""

STEP_TERMS: Final = (Coefficient("between_steps_s", 1e-4, 0.0, 3e-3, 1e-4),)
REQUEST_TERMS: Final = (
    Coefficient("front_end_s", 2e-2, 0.0, 3e-1, 1e-2),
    Coefficient("per_token_s", 2e-6, 0.0, 1e-5, 1e-6),
)
"""A tokeniser takes 100,000 tokens a second at least."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run beside its replay without terms."""

    preset: str
    is_fitted: bool
    num_prompt_tokens: float
    """Mean of its requests."""
    ttft_s: float
    tpot_s: float
    replayed_ttft_s: float
    replayed_tpot_s: float


@dataclass(frozen=True, slots=True)
class HostFit:
    """Fitted terms of one engine, and the errors with them."""

    preset: str
    terms: HostTerms
    tpot: dict[str, ErrorSummary]
    """By side: fitted, held_out; a side without rows is left out."""
    ttft: dict[str, ErrorSummary]


def fit_host_terms(folder: Path) -> Iterator[HostFit]:
    """One fit for every engine with rows of fitted models, in alphabetical order."""
    runs: dict[str, list[Measured]] = defaultdict(list)
    for run in measured_runs(folder):
        runs[run.preset].append(run)
    for preset in sorted(runs):
        if any(run.is_fitted for run in runs[preset]):
            yield fit_engine(preset, runs[preset])


def fit_engine(preset: str, runs: Sequence[Measured]) -> HostFit:
    """Terms of one engine from its runs of fitted models; errors over all of its runs."""
    fitted = [run for run in runs if run.is_fitted]
    step = _fit(
        STEP_TERMS, _column(fitted, "replayed_tpot_s"), np.ones((1, len(fitted))), _column(fitted, "tpot_s"),
        loss="soft_l1", scale=ROBUST_SCALE,
    )  # fmt: skip
    request = _fit(
        REQUEST_TERMS, _column(fitted, "replayed_ttft_s"), _per_request(fitted), _column(fitted, "ttft_s"),
        loss="cauchy", scale=STALL_SCALE,
    )  # fmt: skip
    tpot, ttft = {}, {}
    for side, wanted in (("fitted", True), ("held_out", False)):
        rows = [run for run in runs if run.is_fitted is wanted]
        if rows:
            late_s = request @ _per_request(rows)
            tpot[side] = summarize(_column(rows, "replayed_tpot_s") + step[0], _column(rows, "tpot_s"))
            ttft[side] = summarize(_column(rows, "replayed_ttft_s") + late_s, _column(rows, "ttft_s"))
    return HostFit(preset, HostTerms(float(step[0]), float(request[0]), float(request[1])), tpot, ttft)


def _per_request(runs: Sequence[Measured]) -> FloatArray:
    """[REQUEST_TERMS, runs] what each term is taken times."""
    counts: FloatArray = np.stack([np.ones(len(runs)), _column(runs, "num_prompt_tokens")])
    return counts


def _fit(
    coefficients: Sequence[Coefficient],
    without_s: FloatArray,
    per_unit: FloatArray,
    measured_s: FloatArray,
    *,
    loss: Literal["soft_l1", "cauchy"],
    scale: float,
) -> FloatArray:
    """Bounded values whose sum over per_unit [coefficients, rows] brings `without_s` to what was measured."""
    units = np.array([one.scale for one in coefficients])

    def residuals(scaled: FloatArray) -> FloatArray:
        error: FloatArray = np.log((without_s + (scaled * units) @ per_unit) / measured_s)
        return error

    found = least_squares(
        residuals,
        np.array([one.start for one in coefficients]) / units,
        bounds=(
            np.array([one.lower for one in coefficients]) / units,
            np.array([one.upper for one in coefficients]) / units,
        ),
        loss=loss,
        f_scale=scale,
    )
    values: FloatArray = found.x * units
    return values


def _column(runs: Sequence[Measured], name: str) -> FloatArray:
    return np.array([getattr(run, name) for run in runs], np.float64)


def measured_runs(folder: Path) -> Iterator[Measured]:
    """Aggregated runs that a host can be told from, each experiment once, replayed without terms."""
    seen: set[tuple[object, ...]] = set()
    for table in READER.tables(folder):
        rows = [row for row in read_silicon_table(table, table.name) if not isinstance(row, Problem)]
        drafting = drafting_rows(rows)
        for number, run in enumerate(rows):
            experiment = (
                shape_of(run.model), run.system, run.backend, run.precision, run.engines,
                run.isl, run.osl, run.concurrency, run.ttft_s, run.tpot_s,
            )  # fmt: skip
            if number in drafting or experiment in seen or not _tells_of_the_host(run):
                continue
            seen.add(experiment)
            try:
                model, means = replay_run(run, NO_TERMS)
            except (SetupError, UnknownModelError, HermesError):
                continue
            yield Measured(
                preset=preset_of(run.backend),
                is_fitted=is_fitted(model),
                num_prompt_tokens=MEAN_LENGTH_FRAC * run.isl,
                ttft_s=run.ttft_s,
                tpot_s=run.tpot_s,
                replayed_ttft_s=means.ttft_s,
                replayed_tpot_s=means.tpot_s,
            )


def _tells_of_the_host(run: ServingRun) -> bool:
    mode = "disaggregated" if run.is_disaggregated else "aggregated"
    return (
        mode in FITTED_CLOSED_LOOP_MODES
        and run.is_drawn
        and run.concurrency <= MOST_USERS
        and run.osl <= MOST_OUTPUT_TOKENS
    )


def main() -> None:
    """Print the terms of every engine, and mean, median, p90 and bias of TPOT and TTFT on both sides."""
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.calibration.host_closed_loop", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    for fit in fit_host_terms(parser.parse_args().folder):
        terms = fit.terms
        sys.stdout.write(
            f"{fit.preset}: between steps {terms.between_steps_s * 1e6:.4g} us, front end "
            f"{terms.front_end_s * 1e3:.4g} ms and {terms.per_token_s * 1e6:.4g} us a prompt token\n"
        )
        for metric, sides in (("TPOT", fit.tpot), ("TTFT", fit.ttft)):
            for side, errors in sides.items():
                sys.stdout.write(
                    f"  {metric} {side:8s} mean {errors.mean_frac:6.1%} median {errors.median_frac:6.1%} "
                    f"p90 {errors.p90_frac:6.1%} bias {errors.bias_frac:+6.1%} "
                    f"band {errors.low_frac:.3f}-{errors.high_frac:.3f} ({errors.num_points} runs)\n"
                )


if __name__ == "__main__":
    main()
