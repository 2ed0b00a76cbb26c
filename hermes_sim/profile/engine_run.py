"""`profile engine`: replay a trace through the reference loop, with and without captured decodes, into tables."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Final

from hermes_sim import __version__
from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.profile.backend import ITEM_BYTES, Backend, DeviceKind, choose_backend
from hermes_sim.profile.engine_loop import EngineLoop, Generation, Run, StepRecord
from hermes_sim.profile.engine_model import CapturedDecode, Transformer
from hermes_sim.profile.engine_shape import MODELS, ModelShape
from hermes_sim.profile.request_trace import Request, poisson_trace, read_trace
from hermes_sim.profile.session import open_folder, progress_bar

MEMORY_FRAC = 0.8
"""Share of the free memory for weights and KV cache."""
SMALL_CAPTURES: Final = (1, 2, 4)
CAPTURE_EVERY = 8
REQUEST_COLUMNS: Final = (
    "request", "input_tokens", "output_tokens", "arrival_s", "queued_s", "scheduled_s", "first_token_s", "last_token_s",
    "ttft_s", "tpot_s", "e2e_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What to replay and how; None: a default that suits the device."""

    model: str | None = None
    rate_per_s: float | None = None
    num_requests: int | None = None
    trace: Path | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    block_tokens: int = 16


DEFAULTS: Final = EngineSettings()
GPU_DEFAULTS: Final = ("llama_3_1_8b", 8.0, 300, (64, 2048), (16, 256))
CPU_DEFAULTS: Final = ("small", 4.0, 40, (16, 256), (8, 64))
"""Model, requests per second, number of requests, bounds of prompt and of output tokens."""


def profile_engine(
    out: Path, settings: EngineSettings, *, budget_s: float, device: DeviceKind = "cuda", shown: bool = False
) -> str:
    """The line to print. A replay whose tables are there already is not run again."""
    start_s = perf_counter()
    backend = choose_backend(device)
    name, shape, requests = _experiment(backend, settings)
    folder = open_folder(out)
    modes = ("graph", "eager") if backend.captures else ("eager",)
    missing = [mode for mode in modes if not (replay_folder(folder, mode) / "requests.csv").exists()]
    if not missing:
        return f"nothing left to replay in {folder}"
    longest = max(request.num_prompt_tokens + request.num_output_tokens for request in requests)
    max_blocks = -(-longest // settings.block_tokens)
    num_blocks = _num_blocks(backend, shape, settings, max_blocks)
    model = Transformer(backend, shape, num_blocks, settings.block_tokens)
    lines = []
    with progress_bar(shown) as progress:
        for place, mode in enumerate(missing):
            loop = _loop(model, settings, num_blocks, max_blocks, captured=mode == "graph")
            _warm_up(loop, settings, longest)
            left_s = (budget_s - (perf_counter() - start_s)) / (len(missing) - place)

            def update(done: int, mode: str = mode) -> None:
                if progress is not None:
                    progress(done, len(requests), mode)

            run = loop.replay(requests, left_s, update)
            _write(
                open_folder(replay_folder(folder, mode)),
                run,
                _description(backend, name, shape, settings, num_blocks, mode, run, len(requests)),
            )
            lines.append(_summary(mode, run, len(requests)))
    return "\n".join([*lines, f"saved {folder}"])


def replay_folder(folder: Path, mode: str) -> Path:
    """Where one replay lies: serving runs are apart from tables of kernels."""
    return folder / "serving" / f"reference_loop_{mode}"


def capture_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Batch sizes captured: 1, 2, 4, then every eighth, as vLLM does."""
    sizes = {*SMALL_CAPTURES, *range(CAPTURE_EVERY, max_num_seqs + 1, CAPTURE_EVERY), max_num_seqs}
    return tuple(sorted(size for size in sizes if size <= max_num_seqs))


def _experiment(backend: Backend, settings: EngineSettings) -> tuple[str, ModelShape, list[Request]]:
    model, rate_per_s, num_requests, prompt, output = GPU_DEFAULTS if backend.captures else CPU_DEFAULTS
    name = settings.model or model
    if name not in MODELS:
        raise HermesError(f"--model {name}: has to be one of {listed(MODELS)}.{did_you_mean(name, MODELS)}")
    if min(settings.max_num_seqs, settings.max_num_batched_tokens) < 1:
        raise HermesError("--max-num-seqs and --max-num-batched-tokens have to be 1 or more")
    if settings.max_num_seqs > settings.max_num_batched_tokens:
        raise HermesError("--max-num-seqs: more sequences than --max-num-batched-tokens could never step together")
    if settings.trace is not None:
        return name, MODELS[name], read_trace(settings.trace)
    rate_per_s = rate_per_s if settings.rate_per_s is None else settings.rate_per_s
    num_requests = num_requests if settings.num_requests is None else settings.num_requests
    if rate_per_s <= 0.0 or num_requests < 1:
        raise HermesError("--rate has to be above 0, --requests 1 or more")
    return name, MODELS[name], poisson_trace(rate_per_s, num_requests, prompt, output)


def _num_blocks(backend: Backend, shape: ModelShape, settings: EngineSettings, max_blocks: int) -> int:
    """Blocks for as many of the longest sequences as may run, or what the memory has left beside the weights."""
    item = ITEM_BYTES[backend.dtype]
    room = MEMORY_FRAC * backend.free_bytes() - item * shape.num_weights
    fitting = int(room / (item * shape.kv_values_per_token * settings.block_tokens))
    if fitting < max_blocks:
        raise HermesError("the free memory does not hold the model and one sequence; choose a smaller --model")
    return min(fitting, settings.max_num_seqs * max_blocks)


def _loop(
    model: Transformer, settings: EngineSettings, num_blocks: int, max_blocks: int, *, captured: bool
) -> EngineLoop:
    graphs = CapturedDecode(model, capture_sizes(settings.max_num_seqs), max_blocks) if captured else None
    return EngineLoop(
        model,
        num_blocks=num_blocks,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_blocks_per_seq=max_blocks,
        captured=graphs,
    )


def _warm_up(loop: EngineLoop, settings: EngineSettings, longest: int) -> None:
    """Every number of decodes, and prompts short and long: kernels are compiled and chosen before the clock runs."""
    most = min(settings.max_num_seqs, longest - 1)
    outputs = range(1, most + 1)
    loop.replay([Request(0.0, max(1, min(16, longest - count)), count) for count in outputs], float("inf"))
    lengths = {longest - 1, max(longest // 2, 1), max(longest // 7, 1)}
    loop.replay([Request(0.0, length, 1) for length in sorted(lengths)], float("inf"))


def _write(folder: Path, run: Run, description: Mapping[str, object]) -> None:
    """Requests last: their file says that a replay is complete."""
    write_whole(folder / "meta.json", json.dumps(description, indent=2) + "\n")
    steps = [field.name for field in fields(StepRecord)]
    write_whole(folder / "steps.csv", _csv(steps, [asdict(step) for step in run.steps]))
    rows = [request_row(sequence) for sequence in sorted(run.sequences, key=lambda one: one.number)]
    write_whole(folder / "requests.csv", _csv(REQUEST_COLUMNS, rows))


def request_row(sequence: Generation) -> dict[str, object]:
    """Times of one finished request; TPOT over the tokens after the first, empty if there are none."""
    request, first_s, finish_s = sequence.request, sequence.first_token_s, sequence.finish_s
    assert first_s is not None
    assert finish_s is not None
    later = request.num_output_tokens - 1
    return {
        "request": sequence.number,
        "input_tokens": request.num_prompt_tokens,
        "output_tokens": request.num_output_tokens,
        "arrival_s": request.arrival_s,
        "queued_s": sequence.queued_s,
        "scheduled_s": sequence.scheduled_s,
        "first_token_s": first_s,
        "last_token_s": finish_s,
        "ttft_s": first_s - request.arrival_s,
        "tpot_s": (finish_s - first_s) / later if later else "",
        "e2e_s": finish_s - request.arrival_s,
    }


def _description(
    backend: Backend,
    name: str,
    shape: ModelShape,
    settings: EngineSettings,
    num_blocks: int,
    mode: str,
    run: Run,
    num_requests: int,
) -> dict[str, object]:
    """Machine, engine and method of one replay, in the words of other recorded runs where they have words."""
    captured = list(capture_sizes(settings.max_num_seqs)) if mode == "graph" else []
    return {
        "measured_by": f"hermes-sim {__version__} profile engine",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": backend.device_name,
        "model": name,
        "engine": "hermes-sim reference loop",
        "dtype": backend.dtype,
        "tensor_parallel_size": 1,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "chunked_prefill": True,
        "prefix_caching": False,
        "gpu_kv_blocks": num_blocks,
        "block_tokens": settings.block_tokens,
        "captured_batch_sizes": captured,
        "method": "random weights, greedy sampling, forced output lengths, real-time arrivals; a step ends when its "
        "tokens are on the host; sequences are admitted when all blocks they will need are free",
        "trace": "of the user" if settings.trace is not None else "built in, Poisson arrivals, uniform lengths",
        "num_requests": num_requests,
        "num_finished": len(run.sequences),
        "not_started_in_budget": num_requests - len(run.sequences),
        "num_steps": len(run.steps),
        "architecture": asdict(shape),
        "machine": backend.machine(),
        "library": backend.name,
        "versions": {"python": platform.python_version(), **backend.versions()},
    }


def _summary(mode: str, run: Run, num_requests: int) -> str:
    rows = [request_row(sequence) for sequence in run.sequences]
    if not rows:
        return f"{mode}: no request was started in the budget"
    ttft_s = _mean([row["ttft_s"] for row in rows])
    tpot_s = _mean([row["tpot_s"] for row in rows if row["tpot_s"] != ""])
    return (
        f"{mode}: {len(rows)} of {num_requests} requests, {len(run.steps)} steps, "
        f"mean TTFT {ttft_s * 1e3:.4g} ms, mean TPOT {tpot_s * 1e3:.4g} ms"
    )


def _mean(values: Sequence[object]) -> float:
    numbers = [value for value in values if isinstance(value, float)]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()
