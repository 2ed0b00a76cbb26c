"""Files of service statistics in ServeGen's form: rates over time and length histograms, by client or in total."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hermes_sim.core.errors import TraceError
from hermes_sim.workload.readers.rows import BadRows, csv_rows, lines, seconds, text_of
from hermes_sim.workload.requests import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Histogram:
    """Probabilities of token counts, uniform within a bin."""

    lowest: IntArray
    """[num_bins] smallest count of each bin."""
    num_values: IntArray
    """[num_bins] counts in each bin."""
    cumulative: FloatArray
    """[num_bins] ascending to 1."""

    def quantiles(self, probability: FloatArray) -> IntArray:
        """Token counts at those probabilities, each in [0, 1)."""
        bins = np.searchsorted(self.cumulative, probability, side="right")
        below = np.concatenate([[0.0], self.cumulative])[bins]
        within = (probability - below) / (self.cumulative[bins] - below)
        offset = np.minimum((within * self.num_values[bins]).astype(np.int64), self.num_values[bins] - 1)
        return np.asarray(self.lowest[bins] + offset)


@dataclass(frozen=True, slots=True)
class Client:
    """One client's (or the whole service's) windows of time."""

    starts_s: FloatArray
    """[num_windows] ascending."""
    rate_per_s: FloatArray
    """[num_windows]"""
    shapes: tuple[tuple[str, float], ...]
    """[num_windows] law of the gaps (Gamma or Weibull) and its shape."""
    lengths_from_s: FloatArray
    """[num_length_windows] ascending."""
    lengths: tuple[tuple[Histogram, Histogram], ...]
    """[num_length_windows] histograms of prompt and output tokens."""

    def lengths_at(self, time_s: float) -> tuple[Histogram, Histogram]:
        """Those of the last window that began by then, else of the first."""
        return self.lengths[max(int(np.searchsorted(self.lengths_from_s, time_s, side="right")) - 1, 0)]


def read_totals(path: Path, cv: float, bad_rows: BadRows) -> Client:
    """The whole service as one client with gamma gaps of that variation, from NAME_rate.csv and its sibling.

    Raises TraceError where a file is missing or makes no sense; single rows of the rates go to bad_rows.
    """
    if "_rate" not in path.name:
        raise TraceError(f"{path}: needs a folder of chunk-N-trace.csv files, or a file NAME_rate.csv")
    windows: list[tuple[float, float]] = []
    for line, (time, rate) in csv_rows(path, ("time_s", "total_rate_rps")):
        try:
            windows.append((seconds(time, "time_s"), seconds(rate, "total_rate_rps")))
        except ValueError as error:
            bad_rows.report(line, str(error))
    if not windows:
        raise TraceError(f"{path}: no windows")
    starts_s, rate_per_s = np.array(windows).T
    if (np.diff(starts_s) <= 0.0).any():
        raise TraceError(f"{path}: time_s must ascend")
    lengths = binned_lengths(path.with_name(path.name.replace("_rate", "_length_pmf")))
    shapes = (("Gamma", 1.0 / (cv * cv)),) * len(windows)
    return Client(starts_s, rate_per_s, shapes, lengths_from_s=starts_s[:1], lengths=(lengths,))


def binned_lengths(path: Path) -> tuple[Histogram, Histogram]:
    """Histograms of prompt and output tokens over shared bins; the last bin is as wide as the one before."""
    rows: list[tuple[float, ...]] = []
    names = ("bin_lower_tokens", "input_tokens_prob", "output_tokens_prob")
    for line, cells in csv_rows(path, names):
        try:
            rows.append(tuple(seconds(cell, name) for cell, name in zip(cells, names, strict=True)))
        except ValueError as error:
            raise TraceError(f"{path}:{line}: {error}") from None
    if len(rows) < 2:
        raise TraceError(f"{path}: needs two bins or more")
    lowest, input_probability, output_probability = np.array(rows).T
    return _histogram(path, lowest, input_probability), _histogram(path, lowest, output_probability)


def _histogram(path: Path, lowest: FloatArray, probability: FloatArray) -> Histogram:
    widths = np.diff(lowest)
    total = probability.sum()
    if (widths <= 0).any() or not math.isclose(total, 1.0, abs_tol=1e-3):
        raise TraceError(f"{path}: bins must ascend and probabilities sum to 1, not {total:g}")
    num_values = np.append(widths, widths[-1:]).astype(np.int64)
    return Histogram(lowest.astype(np.int64), num_values, _cumulative(probability))


def _cumulative(probability: FloatArray) -> FloatArray:
    """Running sum scaled to end at 1 exactly, so that every draw below 1 finds a bin."""
    sums = np.cumsum(probability)
    return np.where(sums >= sums[-1], 1.0, sums / sums[-1])


def read_clients(folder: Path) -> list[Client]:
    """Every client of a folder that has lengths. Raises TraceError with file, line and reason."""
    traces = sorted(folder.glob("chunk-*-trace.csv*"), key=_chunk_number)
    if not traces:
        raise TraceError(f"{folder}: no chunk-N-trace.csv in this folder")
    clients = (_client(trace, _dataset_of(trace)) for trace in traces)
    return [client for client in clients if client.lengths]


def _chunk_number(path: Path) -> int:
    number = path.name.split("-")[1]
    if not number.isdecimal():
        raise TraceError(f"{path}: a client's file is named chunk-NUMBER-trace.csv")
    return int(number)


def _dataset_of(trace: Path) -> Path:
    for name in (f"chunk-{_chunk_number(trace)}-dataset.json", f"chunk-{_chunk_number(trace)}-dataset.json.gz"):
        if (trace.parent / name).is_file():
            return trace.parent / name
    raise TraceError(f"{trace}: no chunk-{_chunk_number(trace)}-dataset.json beside it")


def _client(trace: Path, dataset: Path) -> Client:
    starts_s: list[float] = []
    rates_per_s: list[float] = []
    shapes: list[tuple[str, float]] = []
    for line, text in enumerate(lines(trace), start=1):
        cells = text.strip().split(",")
        try:
            if len(cells) != 6 or cells[3] not in ("", "Gamma", "Weibull"):
                raise ValueError("needs window start, rate, cv, pattern (Gamma, Weibull or empty), shape, scale")
            starts_s.append(seconds(cells[0], "window start"))
            rates_per_s.append(seconds(cells[1], "rate") if cells[3] else 0.0)
            shapes.append((cells[3], seconds(cells[4], "shape")) if cells[3] else ("Gamma", 1.0))
        except ValueError as error:
            raise TraceError(f"{trace}:{line}: {error}") from None
        if shapes[-1][1] == 0.0 or (len(starts_s) > 1 and starts_s[-1] <= starts_s[-2]):
            raise TraceError(f"{trace}:{line}: window starts must ascend and shapes be > 0")
    lengths = _lengths(dataset)
    return Client(
        np.array(starts_s), np.array(rates_per_s), tuple(shapes),
        lengths_from_s=np.array(list(lengths)), lengths=tuple(lengths.values()),
    )  # fmt: skip


def _lengths(dataset: Path) -> dict[float, tuple[Histogram, Histogram]]:
    """Window start -> histograms; windows without any request are left out."""
    try:
        windows = json.loads(text_of(dataset))
        by_start = {float(start): fields for start, fields in windows.items()}
        return {
            start: (_counts(by_start[start]["input_tokens"]), _counts(by_start[start]["output_tokens"]))
            for start in sorted(by_start)
            if all(ast.literal_eval(by_start[start][name]) for name in ("input_tokens", "output_tokens"))
        }
    except KeyError as error:
        raise TraceError(f"{dataset}: a window has no {error}") from None
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"{dataset}: needs {{window start: {{input_tokens, output_tokens}}}}: {error}") from None


def _counts(literal: Any) -> Histogram:
    """`{12: 0.25, 13: 0.75}` -> histogram with one value per bin."""
    probability_of = dict(sorted(ast.literal_eval(literal).items()))
    lowest = np.array([int(count) for count in probability_of], np.int64)
    probability = np.array([float(share) for share in probability_of.values()])
    if lowest.min() < 0 or probability.min() < 0.0 or probability.sum() <= 0.0:
        raise ValueError("token counts and probabilities must be >= 0")
    return Histogram(lowest, np.ones(len(lowest), np.int64), _cumulative(probability))
