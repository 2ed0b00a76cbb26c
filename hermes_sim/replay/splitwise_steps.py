"""Prompt and token steps of a lone engine: a batch of equal prompts comes at once and generates forced outputs.

All batches of one engine are one simulation, far enough apart that each finds it empty. `prompt_s` is the time until
the whole batch has its first tokens, `token_s` the mean time of a decode step afterwards; both without a front end, as
the engine was driven from the same process. Kernels were launched one by one (no captured graphs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import HermesError, Problem
from hermes_sim.replay.experiment import Comparison, Progress, Side, Unexpressed
from hermes_sim.replay.known_names import device_name, model_name
from hermes_sim.replay.latency_metrics import Compared
from hermes_sim.replay.rows import NUMBER, POSITIVE, TEXT, read_rows, tables_with
from hermes_sim.replay.served_engine import ServedEngine, library_device
from hermes_sim.replay.simulated_requests import Simulated, simulate_requests
from hermes_sim.replay.split import FITTED_STEP_TIME_TP
from hermes_sim.workload.requests import request_table

NEEDED: Final = {
    "model": TEXT, "hardware": TEXT, "tp": POSITIVE, "prompt_tokens": POSITIVE, "batch_size": POSITIVE,
    "output_tokens": POSITIVE, "prompt_ms": POSITIVE, "token_ms": POSITIVE,
}  # fmt: skip
OPTIONAL: Final = {"average_power_rel_tdp": NUMBER}
SHAPE: Final = ["prompt_tokens", "batch_size", "output_tokens"]

BETWEEN_BATCHES_S: Final = 36000.0
"""Longer than any batch takes."""

LARGEST_PROMPT_STEP: Final = 32768
"""The engine of these runs put the prompts of a batch into one step, however many tokens they had, also more than the
model was trained for."""

MEMORY_FRACTION: Final = 0.93
"""These runs went up to what the devices hold."""

CAPPED: Final = "-pcap"
CAPPED_PROMPT_FACTOR: Final = 1.3
"""Prompts of devices whose power is capped to half: their compute is limited by power, memory streams are not.
Source: Splitwise (ISCA 2024), section on power capping; the capped rows of the table are 1.3 times the others."""

SAME_STEP_FACTOR: Final = 1.5
"""First tokens of a batch that was one step come together."""


@dataclass(frozen=True, slots=True)
class BatchOfPrompts:
    """One configuration, median over its repeats."""

    row: str
    num_prompt_tokens: int
    batch_size: int
    num_output_tokens: int
    prompt_s: float
    token_s: float
    power_frac: float | None
    """Mean power over TDP; None: not measured."""


@dataclass(frozen=True, slots=True)
class LoneEngine:
    """One engine and the batches that it was given, one after the other."""

    hardware: str
    tp: int
    model: str
    batches: tuple[BatchOfPrompts, ...]

    @property
    def side(self) -> Side:
        """By the degree of tensor parallelism."""
        return "fitted" if self.tp in FITTED_STEP_TIME_TP else "held_out"


class StepTimeReader:
    """Replays batches of equal prompts."""

    name = "splitwise_steps"

    def tables(self, folder: Path) -> Sequence[Path]:
        """Tables of prompt and token steps."""
        return tables_with(folder, NEEDED)

    def replay(
        self, table: Path, name: str, progress: Progress | None = None
    ) -> Iterator[Comparison | Unexpressed | Problem]:
        """One simulation per engine; repeats of a configuration are one row."""
        groups, problems = lone_engines(table, name)
        yield from problems
        for number, group in enumerate(groups):
            try:
                yield from replay_engine(name, group)
            except HermesError as error:
                yield from (Unexpressed(name, batch.row, str(error)) for batch in group.batches)
            if progress is not None:
                progress(name, number + 1, len(groups))


READER: Final = StepTimeReader()


def lone_engines(table: Path, name: str) -> tuple[list[LoneEngine], list[Problem]]:
    """The engines of a table with all their batches, and what is wrong with its rows."""
    rows, problems = read_rows(table, name, NEEDED, OPTIONAL)
    found = []
    for _, group in rows.groupby(["hardware", "tp", "model"], sort=False):
        model, hardware, tp = (str(group[column].iloc[0]) for column in ("model", "hardware", "tp"))
        batches = batches_of(group, f"{model} {hardware} tp{float(tp):g}")
        found.append(LoneEngine(hardware, int(float(tp)), model, tuple(batches)))
    return found, problems


def batches_of(rows: pd.DataFrame, prefix: str) -> list[BatchOfPrompts]:
    """Repeats put together."""
    batches = []
    for _, group in rows.groupby(SHAPE, sort=False):
        prompt, size, output = (int(group[column].iloc[0]) for column in SHAPE)
        power = group["average_power_rel_tdp"].median() if "average_power_rel_tdp" in group else 0.0
        batches.append(
            BatchOfPrompts(
                row=f"{prefix} {size} x {prompt} out {output}",
                num_prompt_tokens=prompt,
                batch_size=size,
                num_output_tokens=output,
                prompt_s=float(group["prompt_ms"].median()) * 1e-3,
                token_s=float(group["token_ms"].median()) * 1e-3,
                power_frac=float(power) if power > 0.0 else None,
            )
        )
    return batches


def step_engine(hardware: str, tp: int, model: str) -> ServedEngine:
    """The engine of such a table. Raises UnknownName."""
    return ServedEngine(
        device=device_name(hardware.removesuffix(CAPPED)),
        model=model_name(model),
        tp=tp,
        preset="vllm_0_2",
        max_num_batched_tokens=LARGEST_PROMPT_STEP,
        prefix_caching=False,
        memory_fraction=MEMORY_FRACTION,
        max_model_len=LARGEST_PROMPT_STEP,
    )


def replay_engine(name: str, group: LoneEngine) -> Iterator[Comparison]:
    """All batches of one engine."""
    hardware, tp, batches = group.hardware, group.tp, group.batches
    engine = step_engine(hardware, tp, group.model)
    simulated = simulate_batches(engine, batches)
    slower = CAPPED_PROMPT_FACTOR if hardware.endswith(CAPPED) else 1.0
    tdp_w = library_device(engine.device).power.tdp_w * tp
    for batch, members in members_of(batches):
        labels = {
            "device": engine.device + (CAPPED if slower > 1.0 else ""), "model": engine.model, "engine": "vllm_0_2",
            "tp": str(tp), "batch_size": str(batch.batch_size), "prompt_tokens": str(batch.num_prompt_tokens),
        }  # fmt: skip
        ttft_s = simulated.latencies.ttft_s[members]
        apart = "the batch does not fit the KV cache: its prompts were no one step"
        left_out = None if ttft_s.max() < SAME_STEP_FACTOR * ttft_s.min() else apart
        compared = Compared(name, batch.row, labels, group.side, left_out)
        yield compared.number("prompt_s", batch.prompt_s, slower * float(ttft_s.max()))
        yield compared.number("token_s", batch.token_s, float(np.nanmean(simulated.latencies.tpot_s[members])))
        if batch.power_frac is not None:
            energy_j = float(np.sum(simulated.tables.requests["energy_j"][members]))
            mean_w = energy_j / float(simulated.latencies.e2e_s[members].max())
            yield compared.number("power_mean_tdp_frac", batch.power_frac, mean_w / tdp_w)


def members_of(batches: Sequence[BatchOfPrompts]) -> Iterator[tuple[BatchOfPrompts, slice]]:
    """Each batch and its requests."""
    first = 0
    for batch in batches:
        yield batch, slice(first, first + batch.batch_size)
        first += batch.batch_size


def simulate_batches(engine: ServedEngine, batches: Sequence[BatchOfPrompts]) -> Simulated:
    """Batches one after the other, each into an empty engine."""
    sizes = [batch.batch_size for batch in batches]
    return simulate_requests(
        engine,
        request_table(
            np.repeat(np.arange(len(batches)) * BETWEEN_BATCHES_S, sizes),
            np.repeat([batch.num_prompt_tokens for batch in batches], sizes),
            np.repeat([batch.num_output_tokens for batch in batches], sizes),
        ),
    )
