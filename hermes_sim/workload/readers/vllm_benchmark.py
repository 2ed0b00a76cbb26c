"""Result files of vLLM's serving benchmark, saved with details: replays the requests that were measured.

Keys used: input_lens, output_lens, and where present start_times, errors, request_rate, burstiness, max_concurrency.
The latencies (ttfts, itls) are the measurement itself and are not read here.
Source: vllm-project/vllm, vllm/benchmarks/serve.py (--save-result, --save-detailed).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.core.schema import one_of
from hermes_sim.workload.arrivals import PROCESSES, Arrivals
from hermes_sim.workload.readers.rows import BadRows, recorded, seconds, shown_cell, text_of, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import ClosedLoop, RequestTable, request_table


class VllmBenchmark(Trace):
    """One request per entry of input_lens.

    Arrivals are `arrivals` if given; else the recorded start_times; else a closed loop of max_concurrency users where
    the rate was infinite; else drawn anew with the file's request_rate and burstiness.
    """

    published: ClassVar[str] = "vLLM writes it: vllm bench serve --save-result --save-detailed."
    format: Literal["vllm_benchmark"] = "vllm_benchmark"
    arrivals: Annotated[Arrivals, one_of(PROCESSES, "law of arrivals")] | None = None

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        result = _result(path)
        bad_rows = BadRows(path, self.on_bad_row)
        errors = _list(path, result, "errors", missing=[])
        starts = _list(path, result, "start_times", missing=[])
        input_lens, output_lens = _list(path, result, "input_lens"), _list(path, result, "output_lens")
        for name, column in (("output_lens", output_lens), ("errors", errors), ("start_times", starts)):
            if len(column) != len(input_lens) and (column or name == "output_lens"):
                raise TraceError(f"{path}: {len(column)} {name}, but {len(input_lens)} input_lens")
        rows: list[tuple[int, int, float]] = []
        num_failed = 0
        for entry, (input_len, output_len) in enumerate(zip(input_lens, output_lens, strict=True)):
            if len(rows) == num_rows:
                break
            if errors and errors[entry]:
                num_failed += 1
                continue
            try:
                start_s = seconds(starts[entry], "start_times") if starts else 0.0
                rows.append((tokens(input_len, "input_lens"), tokens(output_len, "output_lens"), start_s))
            except ValueError as error:
                bad_rows.report(1, f"entry {entry}: {error}")
        notes = (f"{path.name}: {num_failed:,} requests that failed in the benchmark left out",) if num_failed else ()
        prompt, output, starts_s = zip(*rows, strict=True) if rows else ((), (), ())
        if starts and self.arrivals is None:
            return recorded(np.array(starts_s) - min(starts_s, default=0.0), prompt, output, bad_rows, notes=notes)
        return self._placed(result, prompt, output, seed, num_bad_rows=bad_rows.num_bad_rows, notes=notes)

    def _placed(
        self, result: dict[str, Any], prompt: tuple[int, ...], output: tuple[int, ...], seed: int, **about: Any
    ) -> RequestTable:
        num_requests = len(prompt)
        rate, concurrency = result.get("request_rate"), result.get("max_concurrency")
        if self.arrivals is not None:
            arrivals = self.arrivals
        elif rate in ("inf", math.inf, None):
            if concurrency:
                users = ClosedLoop(tokens(concurrency, "max_concurrency"), np.zeros(num_requests))
                return request_table(np.full(num_requests, np.nan), prompt, output, closed_loop=users, **about)
            return request_table(np.zeros(num_requests), prompt, output, **about)
        else:
            arrivals = _law(rate, result.get("burstiness", 1.0))
        times_s = arrivals.times(stream(seed, "arrivals"), num_requests, None, Path)
        return request_table(times_s, prompt[: len(times_s)], output[: len(times_s)], **about)


def _law(rate: Any, burstiness: Any) -> Arrivals:
    """vLLM draws gaps from a gamma law of shape `burstiness`."""
    try:
        rate_per_s, shape = seconds(rate, "request_rate"), seconds(burstiness, "burstiness")
    except ValueError as error:
        raise TraceError(f"vllm_benchmark: {error}") from None
    if shape == 0.0:
        raise TraceError("vllm_benchmark: burstiness is 0")
    return PROCESSES["gamma"].model_validate({"rate": f"{rate_per_s!r} /s", "cv": 1.0 / math.sqrt(shape)})


def _result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise TraceError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise TraceError(f"{path}: not JSON: nested too deeply") from None
    if not isinstance(result, dict):
        raise TraceError(f"{path}:1: needs one JSON object, the result of one benchmark")
    return result


def _list(path: Path, result: dict[str, Any], key: str, missing: list[Any] | None = None) -> list[Any]:
    value = result.get(key, missing)
    if value is None:
        raise TraceError(f"{path}: no '{key}': save the benchmark with --save-detailed")
    if not isinstance(value, list):
        raise TraceError(f"{path}: '{key}' needs a list, got {shown_cell(value)}")
    return value
