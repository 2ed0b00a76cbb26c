"""ServeGen statistics: rates over time and length histograms of a service, from which requests are drawn.

Two layouts:
- as published, a folder of `chunk-N-trace.csv` (no header: window start in s, rate, cv, pattern, shape, scale) and
  `chunk-N-dataset.json` ({window start: {"input_tokens": "{tokens: probability}", "output_tokens": ...}}), one pair per
  client;
- totals, a file `NAME_rate.csv` (time_s, total_rate_rps) beside `NAME_length_pmf.csv` (bin_lower_tokens,
  input_tokens_prob, output_tokens_prob), gzip or plain.
Only the marginals of the two lengths are known: they are drawn independently.
Source: alibaba/ServeGen (Xiang et al., "ServeGen: Workload Characterization and Generation of Large Language Model
Serving in Production", NSDI 2026), README and servegen/{clientpool,construct}.py.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.readers.rows import BadRows, csv_rows, lines, seconds, text_of
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import FloatArray, IntArray, RequestTable, request_table

_MOST_REQUESTS: Final = 20_000_000
_LONE_WINDOW_S: Final = 600.0
"""Length of the only window of a file: ServeGen's own."""


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


class ServeGen(Trace):
    """Requests drawn from a service's statistics; without `limit` as many as its rates say.

    Within a window each client's gaps follow its law, scaled so that they fill the window: the rate is kept exactly.
    """

    published: ClassVar[str] = "ServeGen statistics are published at https://github.com/alibaba/ServeGen (Apache-2.0)."
    format: Literal["servegen"] = "servegen"
    cv: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    """Standard deviation / mean of the gaps where the file holds totals only; 1: Poisson."""

    def requests(self, seed: int, resolve_path: ResolvePath) -> RequestTable:
        table = self._draw(self.file(resolve_path), seed, self.limit, self.window_s, self.rate_scale)
        return self._scaled(table, seed, None, 1.0)

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        return self._draw(path, seed, num_rows, None, 1.0)

    def _draw(
        self, path: Path, seed: int, num_rows: int | None, window_s: tuple[float, float] | None, rate_scale: float
    ) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        clients = _clients(path) if path.is_dir() else [_totals(path, self.cv, bad_rows)]
        from_s = min((client.starts_s[0] for client in clients), default=0.0)
        until_s = math.inf
        if window_s is not None:
            from_s, until_s = from_s + window_s[0], from_s + window_s[1]
        for_arrivals, for_lengths = stream(seed, "arrivals"), stream(seed, "lengths")
        none = np.zeros(0, np.int64)
        blocks: list[tuple[FloatArray, IntArray, IntArray]] = [(np.zeros(0), none, none)]
        num_drawn = 0
        for start_s, end_s, present in _windows(clients, from_s, until_s):
            if num_rows is not None and num_drawn >= num_rows:
                break
            rate_per_s = rate_scale * sum(client.rate_per_s[window] for client, window in present)
            if num_drawn + rate_per_s * (end_s - start_s) > _MOST_REQUESTS:
                raise TraceError(f"{path}: more than {_MOST_REQUESTS:,} requests: set window, limit or rate_scale")
            drawn = [
                _requests(client, window, start_s, end_s, rate_scale, for_arrivals, for_lengths)
                for client, window in present
            ]
            times_s, prompt, output = (np.concatenate(column) for column in zip(*drawn, strict=True))
            order = np.argsort(times_s, kind="stable")
            blocks.append((times_s[order] - from_s, prompt[order], output[order]))
            num_drawn += len(times_s)
        times_s, prompt, output = (np.concatenate(column)[:num_rows] for column in zip(*blocks, strict=True))
        return request_table(times_s, prompt, output, num_bad_rows=bad_rows.num_bad_rows)


def _windows(
    clients: Sequence[Client], from_s: float, until_s: float
) -> Iterator[tuple[float, float, list[tuple[Client, int]]]]:
    """(start, end, clients with their own window's number), in order of time, cut to [from_s, until_s)."""
    starts_s = np.unique(np.concatenate([np.zeros(0), *(client.starts_s for client in clients)]))
    last_s = np.diff(starts_s)[-1] if len(starts_s) > 1 else _LONE_WINDOW_S
    for start_s, end_s in zip(starts_s, np.append(starts_s[1:], starts_s[-1:] + last_s), strict=True):
        if end_s <= from_s or start_s >= until_s:
            continue
        present = [
            (client, int(np.searchsorted(client.starts_s, start_s))) for client in clients if start_s in client.starts_s
        ]
        yield max(float(start_s), from_s), min(float(end_s), until_s), present


def _requests(
    client: Client,
    window: int,
    start_s: float,
    end_s: float,
    rate_scale: float,
    for_arrivals: np.random.Generator,
    for_lengths: np.random.Generator,
) -> tuple[FloatArray, IntArray, IntArray]:
    """Times and lengths of one client in one window."""
    expected = client.rate_per_s[window] * rate_scale * (end_s - start_s)
    num_requests = int(expected + for_arrivals.random())  # rounded up with the probability of the remainder
    law, shape = client.shapes[window]
    draw = for_arrivals.standard_gamma if law == "Gamma" else for_arrivals.weibull
    gaps = draw(shape, num_requests + 1)
    total = gaps.sum()
    # gaps of a shape near zero may all underflow to zero: then spread the requests evenly
    shares = np.cumsum(gaps[:-1]) / total if total > 0.0 else np.arange(num_requests) / (num_requests + 1)
    prompt, output = client.lengths_at(start_s)
    for_prompt, for_output = for_lengths.random((num_requests, 2)).T
    return start_s + shares * (end_s - start_s), prompt.quantiles(for_prompt), output.quantiles(for_output)


def _totals(path: Path, cv: float, bad_rows: BadRows) -> Client:
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


def _clients(folder: Path) -> list[Client]:
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
