"""The whole report of one folder: kernels, serving runs, devices never seen, layers, bars."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim import __version__
from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean
from hermes_sim.measured.columns import OPERATORS
from hermes_sim.processes import Report, begin_in_process, num_cores
from hermes_sim.replay.experiment import Replays, readers
from hermes_sim.validation.bars import Bar, band_bar, kernel_bars, layer_bar, layer_sums, serving_bars, unseen_bars
from hermes_sim.validation.errors import grouped
from hermes_sim.validation.kernels import KernelAccuracy, validate_kernels
from hermes_sim.validation.report import FORMAT, report_text
from hermes_sim.validation.served_bands import judges_bands
from hermes_sim.validation.serving import ServingAccuracy, replays, score, validate_serving
from hermes_sim.validation.unseen import score_unseen

WHOLE: Final = ("kernels", "serving")
IN_PROCESSES: Final = "closed_loop"
"""Experiment that takes the longest, and uses several processes itself."""
MOST_PROBLEMS_SHOWN: Final = 200

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Accuracy:
    """All that one validation found."""

    folder: str
    only: str | None
    kernels: KernelAccuracy | None
    serving: ServingAccuracy | None
    unseen: pd.DataFrame | None
    layers: pd.DataFrame | None
    bars: tuple[Bar, ...]

    @property
    def problems(self) -> list[str]:
        """Malformed files and rows, each with its file and row."""
        kernels = [] if self.kernels is None else [str(problem) for problem in self.kernels.tables.problems]
        serving = [] if self.serving is None else [str(problem) for problem in self.serving.problems]
        return kernels + serving

    def as_dict(self) -> dict[str, Any]:
        """The JSON report (docs/accuracy.md describes its keys)."""
        return self._report

    @cached_property
    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "folder": self.folder,
            "only": self.only,
            "bars": [bar.as_dict() for bar in self.bars],
        }
        if self.kernels is not None:
            report["kernels"] = self.kernels.as_dict()
        if self.unseen is not None:
            report["unseen"] = grouped(self.unseen, ["operator", "device", "donor_device", "donor"])
        if self.layers is not None:
            report["layers"] = grouped(self.layers, ["device", "model", "timing"])
        if self.serving is not None:
            report["serving"] = self.serving.as_dict()
        problems = self.problems
        report["problems"] = problems[:MOST_PROBLEMS_SHOWN]
        report["num_problems"] = len(problems)
        return report

    def to_json(self) -> str:
        """Text of the report, the same for the same measurements and coefficients."""
        return report_text(self.as_dict())


def validate_folder(folder: str | Path, only: str | None = None, progress: Progress | None = None) -> Accuracy:
    """Everything measured under the folder beside what this library says of it.

    only: `kernels`, `serving`, an operator, an experiment (`closed_loop`, ...), a device, or a part of a file's path.
    Raises ConfigError where there is no such folder, or where `only` fits nothing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), None, "", "there is no such folder of measured data")])
    of_serving = only not in {"kernels", *OPERATORS}
    experiments = {reader.name for reader in readers()} if of_serving else set()
    of_kernels = only not in {"serving", *experiments}
    name = None if only in WHOLE else only
    beside = of_serving and only in {None, "serving"} and num_cores() > 1
    names = [reader.name for reader in readers()]
    others = [one for one in names if one != IN_PROCESSES]
    beside_us = begin_in_process(_replay, (folder, name, others)) if beside else None
    kernels = validate_kernels(folder, name, progress) if of_kernels else None
    serving = None
    if beside_us is not None:
        replayed = dict([*replays(folder, name, [IN_PROCESSES], progress), *beside_us()])
        serving = score([(one, replayed[one]) for one in names])
    elif of_serving:
        serving = validate_serving(folder, name, progress)
    accuracy = summed_up(str(folder), only, kernels, serving)
    if not _anything(kernels, serving) and not (name is None and accuracy.problems):
        raise ConfigError([_nothing(folder, only, kernels, experiments)])
    return accuracy


def _replay(part: tuple[Path, str | None, list[str]], report: Report) -> list[tuple[str, Replays]]:
    folder, only, experiments = part
    return replays(folder, only, experiments)


def summed_up(
    folder: str, only: str | None, kernels: KernelAccuracy | None, serving: ServingAccuracy | None
) -> Accuracy:
    """The report, with the bars that its parts can answer."""
    bars: list[Bar] = []
    unseen = layers = None
    if kernels is not None and len(kernels.scored):
        unseen = score_unseen(kernels.tables)
        layers = layer_sums(kernels.scored, _parts(kernels))
        bars += kernel_bars(kernels.scored)
        bars += unseen_bars(unseen)
        bars.append(layer_bar(layers))
    if serving is not None and len(serving.scored):
        bars += serving_bars(serving.scored)
    if kernels is not None and len(kernels.scored):
        bars.append(band_bar(kernels.scored, "bands_kernels", "90% bands of kernels kept out"))
    if serving is not None and len(serving.scored):
        bars.append(band_bar(judges_bands(serving.scored), "bands_serving", "90% bands of served runs kept out"))
    return Accuracy(folder, only, kernels, serving, unseen, layers, tuple(bars))


def _nothing(folder: Path, only: str | None, kernels: KernelAccuracy | None, experiments: Collection[str]) -> Problem:
    if only is None or only in WHOLE:
        return Problem(str(folder), None, "", "no table of measurements is in this folder (docs/measured-tables.md)")
    known = [*WHOLE, *OPERATORS, *sorted(experiments)]
    message = (
        f"nothing in the folder goes by that name; known are {', '.join(known)}, devices, and parts of file names."
    )
    devices = {str(name) for table in (kernels.tables if kernels else {}).values() for name in table["device"].unique()}
    return Problem(f"--only {only}", None, "", message + did_you_mean(only, [*known, *sorted(devices)]))


def _parts(kernels: KernelAccuracy) -> pd.DataFrame:
    """Part, tp and num_tokens of every scored product and stream, by its place in `scored`."""
    found = []
    for operator in ("gemm", "stream"):
        rows = kernels.scored[kernels.scored["operator"] == operator]
        if len(rows):
            origin = kernels.tables[operator].loc[rows["index"], ["part", "tp", "num_tokens"]]
            found.append(origin.set_index(rows.index))
    return pd.concat(found) if found else pd.DataFrame(columns=["part", "tp", "num_tokens"])


def _anything(kernels: KernelAccuracy | None, serving: ServingAccuracy | None) -> bool:
    found = kernels is not None and (len(kernels.scored) > 0 or len(kernels.unexpressed) > 0)
    return found or (serving is not None and len(serving.scored) + len(serving.left_out) + len(serving.unexpressed) > 0)
