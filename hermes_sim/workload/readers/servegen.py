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

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.readers.rows import BadRows
from hermes_sim.workload.readers.service_statistics import Client, read_clients, read_totals
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import FloatArray, IntArray, RequestTable, request_table

_MOST_REQUESTS: Final = 20_000_000
_LONE_WINDOW_S: Final = 600.0
"""Length of the only window of a file: ServeGen's own."""


class ServeGen(Trace):
    """Requests drawn from a service's statistics; without `limit` as many as its rates say.

    Within a window each client's gaps follow its law, scaled so that they fill the window: the rate is kept exactly. A
    folder says which client sends which request; totals do not.
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
        clients = read_clients(path) if path.is_dir() else [read_totals(path, self.cv, bad_rows)]
        from_s = min((client.starts_s[0] for client in clients), default=0.0)
        until_s = math.inf
        if window_s is not None:
            from_s, until_s = from_s + window_s[0], from_s + window_s[1]
        for_arrivals, for_lengths = stream(seed, "arrivals"), stream(seed, "lengths")
        none = np.zeros(0, np.int64)
        blocks: list[tuple[FloatArray, IntArray, IntArray, IntArray]] = [(np.zeros(0), none, none, none)]
        num_drawn = 0
        for start_s, end_s, present in _windows(clients, from_s, until_s):
            if num_rows is not None and num_drawn >= num_rows:
                break
            rate_per_s = rate_scale * sum(clients[number].rate_per_s[window] for number, window in present)
            if num_drawn + rate_per_s * (end_s - start_s) > _MOST_REQUESTS:
                raise TraceError(f"{path}: more than {_MOST_REQUESTS:,} requests: set window, limit or rate_scale")
            drawn = [
                _requests(clients[number], window, start_s, end_s, rate_scale, for_arrivals, for_lengths)
                for number, window in present
            ]
            sent_by = np.repeat([number for number, _ in present], [len(times_s) for times_s, *_ in drawn])
            times_s, prompt, output = (np.concatenate(column) for column in zip(*drawn, strict=True))
            order = np.argsort(times_s, kind="stable")
            blocks.append((times_s[order] - from_s, prompt[order], output[order], sent_by[order]))
            num_drawn += len(times_s)
        times_s, prompt, output, sent_by = (np.concatenate(column)[:num_rows] for column in zip(*blocks, strict=True))
        return request_table(
            times_s, prompt, output, num_bad_rows=bad_rows.num_bad_rows, client=sent_by if path.is_dir() else None
        )


def _windows(
    clients: Sequence[Client], from_s: float, until_s: float
) -> Iterator[tuple[float, float, list[tuple[int, int]]]]:
    """(start, end, [(client, its own window)] by number), in order of time, cut to [from_s, until_s)."""
    starts_s = np.unique(np.concatenate([np.zeros(0), *(client.starts_s for client in clients)]))
    last_s = np.diff(starts_s)[-1] if len(starts_s) > 1 else _LONE_WINDOW_S
    for start_s, end_s in zip(starts_s, np.append(starts_s[1:], starts_s[-1:] + last_s), strict=True):
        if end_s <= from_s or start_s >= until_s:
            continue
        present = [
            (number, int(np.searchsorted(client.starts_s, start_s)))
            for number, client in enumerate(clients)
            if start_s in client.starts_s
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
