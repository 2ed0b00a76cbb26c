"""Open-loop runs of which every request was recorded: the same arrivals, lengths and limits in the simulator.

Two layouts are known. Moments of the client in microseconds (send_us, first_chunk_us, last_chunk_us); and moments of
the engine in seconds (arrival_s, queued_s, first_token_s, last_token_s), where latencies count from the moment at which
the engine takes a request in, as its own records have it. The engine's limits lie in a JSON file beside the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.experiment import Comparison, Progress, Unexpressed
from hermes_sim.replay.known_names import device_name, model_name
from hermes_sim.replay.latency_metrics import Compared
from hermes_sim.replay.request_workloads import seen_before_tokens
from hermes_sim.replay.rows import NUMBER, POSITIVE, TEXT, descriptions_beside, read_rows, tables_with
from hermes_sim.replay.served_engine import ServedEngine, engine_version
from hermes_sim.replay.shared_prompts import BLOCK_TOKENS, prompts_seen_before
from hermes_sim.replay.simulated_requests import Latencies, Simulated, simulate_requests
from hermes_sim.workload.requests import RequestTable, request_table

FloatArray = npt.NDArray[np.float64]

CLIENT_COLUMNS: Final = {
    "input_tokens": POSITIVE, "output_tokens": POSITIVE, "send_us": NUMBER, "first_chunk_us": NUMBER,
    "last_chunk_us": NUMBER,
}  # fmt: skip
ENGINE_COLUMNS: Final = {
    "input_tokens": POSITIVE, "output_tokens": POSITIVE, "arrival_s": NUMBER, "queued_s": NUMBER,
    "first_token_s": NUMBER, "last_token_s": NUMBER,
}  # fmt: skip

FINISHED: Final = "ok"
"""Status of a request that got its answer."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Requests of one run, in order of arrival."""

    rows: pd.DataFrame
    engine: ServedEngine
    labels: Mapping[str, str]


class PerRequestReader:
    """Replays recorded requests."""

    name = "per_request"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables with one row per request."""
        return sorted({*tables_with(folder, CLIENT_COLUMNS), *tables_with(folder, ENGINE_COLUMNS)})

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """Latencies of the whole run: its requests are not compared one by one."""
        by_client = set(CLIENT_COLUMNS) <= set(pd.read_csv(table, nrows=0).columns)
        rows, problems = read_rows(table, name, CLIENT_COLUMNS if by_client else ENGINE_COLUMNS, {"status": TEXT})
        yield from problems
        descriptions, problems = descriptions_beside(table, name)
        yield from problems
        try:
            engine = described_engine(descriptions)
            if len(rows) == 0:
                yield Unexpressed(name, "all", "no request could be read")
                return
            run = Recorded(rows, engine, labels_of(engine, rows, by_client=by_client))
            yield from replay_client(run, name) if by_client else replay_engine(run, name, table)
        except HermesError as error:
            yield Unexpressed(name, "all", str(error))
        if progress is not None:
            progress(name, 1, 1)


READER: Final = PerRequestReader()


def described_engine(descriptions: Iterable[Mapping[str, Any]]) -> ServedEngine:
    """The engine that the JSON files beside a table describe. Raises HermesError."""
    for data in descriptions:
        limits = data.get("engine_kwargs", data)
        if not isinstance(limits, Mapping) or "max_num_seqs" not in limits:
            continue
        device = data.get("hardware") or _simulated_hardware(data)
        if device is None:
            raise HermesError("the description beside the table names no hardware")
        version = data.get("vllm_version") or data.get("engine") or ""
        return ServedEngine(
            device=device_name(str(device)),
            model=model_name(str(data.get("model") or limits.get("model"))),
            tp=int(limits.get("tp") or limits.get("tensor_parallel_size") or 1),
            replicas=int(limits.get("data_parallel_size") or 1),
            version=engine_version(str(version)),
            max_num_seqs=limits.get("max_num_seqs"),
            max_num_batched_tokens=limits.get("max_num_batched_tokens"),
            chunked_prefill=limits.get("chunked_prefill"),
            prefix_caching=limits.get("prefix_caching", True),
            num_gpu_blocks=data.get("gpu_kv_blocks"),
        )
    raise HermesError("no JSON file beside the table states the engine's limits (max_num_seqs ...)")


def _simulated_hardware(data: Mapping[str, Any]) -> str | None:
    """The device that a peer's own description of the run names."""
    nodes = data.get("peer_cluster_config", {}).get("nodes", [])
    names = [instance.get("hardware") for node in nodes for instance in node.get("instances", [])]
    return names[0] if names else None


def labels_of(engine: ServedEngine, rows: pd.DataFrame, *, by_client: bool) -> dict[str, str]:
    """What a report groups the run by."""
    moments = rows["send_us"] * 1e-6 if by_client else rows["arrival_s"]
    span_s = float(moments.max() - moments.min())
    return {
        "device": engine.device,
        "model": engine.model,
        "engine": "vllm",
        "tp": str(engine.tp),
        "rate": f"{(len(rows) - 1) / span_s:.3g}" if span_s > 0.0 else "burst",
        "workload": "per request",
    }


def replay_client(run: Recorded, name: str) -> Iterator[Comparison | Problem]:
    """Latencies as the client saw them, from the moment at which it really sent."""
    rows = run.rows.sort_values("send_us", kind="stable")
    sent_s, first_s, last_s = (
        rows[f"{key}_us"].to_numpy(float) * 1e-6 for key in ("send", "first_chunk", "last_chunk")
    )
    num_tokens = rows["output_tokens"].to_numpy(float)
    answered = (rows["status"] == FINISHED).to_numpy(bool) if "status" in rows else np.ones(len(rows), bool)
    requests = request_table(sent_s - sent_s.min(), rows["input_tokens"], num_tokens)
    simulated = simulate_requests(run.engine, requests)
    measured = Latencies.of(sent_s, first_s, last_s, num_tokens).rows(answered)
    yield from Compared(name, "all", run.labels, "held_out").latencies(measured, simulated.latencies.rows(answered))


def replay_engine(run: Recorded, name: str, table: Path) -> Iterator[Comparison]:
    """Latencies as the engine recorded them: from the step at whose start it took the request in."""
    rows = run.rows.sort_values("arrival_s", kind="stable")
    requests = engine_requests(rows, table)
    simulated = simulate_requests(run.engine, requests, steps=True)
    num_tokens = rows["output_tokens"].to_numpy(float)
    queued_s, first_s, last_s = (rows[f"{key}_s"].to_numpy(float) for key in ("queued", "first_token", "last_token"))
    compared = Compared(name, "all", run.labels, "held_out")
    taken_in_s = taken_in(simulated)
    engine_first_s = np.asarray(simulated.tables.requests["engine_first_token_s"], float)
    send_out_s = simulated.first_token_s - engine_first_s
    predicted = Latencies.of(taken_in_s, engine_first_s, simulated.finish_s - send_out_s, num_tokens)
    yield from compared.latencies(Latencies.of(queued_s, first_s, last_s, num_tokens), predicted)
    from_arrival = Compared(name, "from arrival", run.labels, "held_out")
    arrival_s = rows["arrival_s"].to_numpy(float)
    yield from from_arrival.latencies(Latencies.of(arrival_s, first_s, last_s, num_tokens), simulated.latencies)
    yield compared.number(
        "throughput_tokens_per_s", num_tokens.sum() / (last_s.max() - arrival_s.min()),
        num_tokens.sum() / float(np.nanmax(simulated.finish_s)),
    )  # fmt: skip


def engine_requests(rows: pd.DataFrame, table: Path) -> RequestTable:
    """Arrivals and forced lengths; prefixes as the workload of the same lengths has them, where it is at hand."""
    arrival_s = rows["arrival_s"].to_numpy(float)
    prompts, outputs = rows["input_tokens"].to_numpy(np.int64), rows["output_tokens"].to_numpy(np.int64)
    seen = seen_before_tokens(table, prompts, outputs)
    if seen is None:
        return request_table(arrival_s - arrival_s.min(), prompts, outputs)
    blocks = prompts_seen_before(prompts.tolist(), seen.tolist())
    return request_table(
        arrival_s - arrival_s.min(), prompts, outputs,
        hash_offsets=blocks.offsets, hash_ids=blocks.ids, hash_block_tokens=BLOCK_TOKENS,
    )  # fmt: skip


def taken_in(simulated: Simulated) -> FloatArray:
    """[num_requests] start of the first step after each arrival: an engine looks into its queue between steps."""
    assert simulated.tables.steps is not None
    starts_s = np.sort(np.asarray(simulated.tables.steps["start_s"], float))
    place = np.searchsorted(starts_s, simulated.arrival_s)
    return np.where(place < len(starts_s), starts_s[np.minimum(place, len(starts_s) - 1)], simulated.arrival_s)
