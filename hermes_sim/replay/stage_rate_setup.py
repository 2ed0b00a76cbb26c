"""What a table of stage rates says of its experiments: engine, prompts, stages. Two layouts are known.

Either each row states its experiment (`experiment`, model, hardware, limits), or it names one (`experiment` or
`variant`) that a JSON file beside the table describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import HermesError
from hermes_sim.replay.generation_defaults import sampling_of
from hermes_sim.replay.known_names import device_name, model_name
from hermes_sim.replay.served_engine import ServedEngine, engine_version

KEY_COLUMNS: Final = ("experiment", "variant")

SERVER_TTFT: Final = "server_ttft_mean_ms"

WHOLE_RUN: Final = -1
"""Stage number of a row that sums up all stages."""

RETOKENISED_FRAC: Final = 1.05
"""Prompt tokens that the engine counts per nominal one, where the table does not say: prompts are text made of drawn
tokens. Tables that state both lie between 1.043 and 1.063."""

DEFAULT_VERSION: Final = (0, 15)
"""vLLM of the runs that state none: all come from one harness of one time."""


class Incomplete(HermesError):
    """The table and the files beside it do not say enough of an experiment."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One row."""

    row: str
    number: int
    num_requests: int
    rate_per_s: float
    measured: Mapping[str, float]
    """Column -> value, in ms."""
    num_failed: int


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of an experiment, sent in turn."""

    num_groups: int
    num_per_group: int
    system_tokens: int
    num_tokens_mean: float
    num_tokens_range: float
    """Longest less shortest."""
    num_output_tokens: int

    def num_tokens(self) -> list[int]:
        """[num_groups * num_per_group] evenly over the range, in the order of multiples of the golden ratio."""
        count = self.num_groups * self.num_per_group
        order = np.argsort(np.argsort(np.arange(count) * 0.6180339887498949 % 1.0))
        place = (order + 0.5) / count - 0.5
        return [max(int(tokens), 1) for tokens in np.rint(self.num_tokens_mean + self.num_tokens_range * place)]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run of a load generator against one engine."""

    key: str
    engine: ServedEngine
    prompts: Prompts
    stages: tuple[Stage, ...]
    """In their order, the row of the whole run left out."""
    whole_run: Stage | None
    labels: Mapping[str, str]
    remote_client: bool
    """The table has the server's own latencies beside the client's: the load came over a network."""


def key_column(columns: Iterable[str]) -> str:
    """The column that names a row's experiment."""
    return next(column for column in KEY_COLUMNS if column in set(columns))


def experiment_of(key: str, rows: pd.DataFrame, described: Mapping[str, Any]) -> Experiment:
    """The rows of one experiment, with what a JSON file says of it. Raises HermesError."""
    facts = {**described, **_stated(rows.iloc[0])}
    prompts = _prompts(facts)
    engine = _engine(facts)
    stages = [_stage(row, facts) for _, row in rows.iterrows()]
    return Experiment(
        key=key,
        engine=engine,
        prompts=prompts,
        stages=tuple(sorted((s for s in stages if s.number != WHOLE_RUN), key=lambda stage: stage.number)),
        whole_run=next((stage for stage in stages if stage.number == WHOLE_RUN), None),
        remote_client=any(SERVER_TTFT in stage.measured for stage in stages),
        labels={
            "device": engine.device,
            "model": engine.model,
            "engine": "vllm",
            "tp": str(engine.tp),
            "workload": str(facts.get("workload", "shared prompts")),
            "max_num_batched_tokens": str(engine.max_num_batched_tokens or "default"),
            "cpu_offload": "yes" if _is_on(facts, "cpu_offload", "cpu_kv_offload") else "no",
            "prefix_caching": "yes" if engine.prefix_caching else "no",
        },
    )


def _is_stated(value: Any) -> bool:
    return not (value is None or value == "" or (isinstance(value, float) and np.isnan(value)))


def _stated(row: pd.Series) -> dict[str, Any]:
    return {str(column): value for column, value in row.items() if _is_stated(value)}


def _first(facts: Mapping[str, Any], *names: str) -> Any:
    """The first of these facts that is stated. Raises Incomplete."""
    for name in names:
        if _is_stated(facts.get(name)):
            return facts[name]
    raise Incomplete(f"nothing says {' or '.join(names)}")


def _optional(facts: Mapping[str, Any], *names: str) -> Any:
    return next((facts[name] for name in names if _is_stated(facts.get(name))), None)


def _is_on(facts: Mapping[str, Any], *names: str) -> bool:
    value = _optional(facts, *names)
    return value is not None and str(value).casefold() not in ("false", "no", "0", "none")


def _engine(facts: Mapping[str, Any]) -> ServedEngine:
    seqs, budget = _optional(facts, "max_num_seqs"), _optional(facts, "max_num_batched_tokens")
    blocks = _optional(facts, "gpu_kv_blocks", "gpu_kv_blocks_of_16")
    fraction = _optional(facts, "gpu_memory_utilization", "gpu_mem_util")
    chunked = _optional(facts, "chunked_prefill")
    model = model_name(str(_first(facts, "model")))
    return ServedEngine(
        device=device_name(str(_first(facts, "hardware"))),
        model=model,
        sampling=sampling_of(model),
        tp=int(float(_first(facts, "tp"))),
        version=engine_version(str(facts.get("engine", ""))) or DEFAULT_VERSION,
        max_num_seqs=int(float(seqs)) if seqs is not None else None,
        max_num_batched_tokens=int(float(budget)) if budget is not None else None,
        chunked_prefill=None if chunked is None else _is_on(facts, "chunked_prefill"),
        prefix_caching=_optional(facts, "prefix_caching") is None or _is_on(facts, "prefix_caching"),
        num_gpu_blocks=int(float(blocks)) if blocks is not None else None,
        memory_fraction=float(fraction) if fraction is not None else None,
    )


def _prompts(facts: Mapping[str, Any]) -> Prompts:
    system = int(float(_first(facts, "system_prompt_len")))
    nominal = system + int(float(_first(facts, "question_len")))
    mean = float(_optional(facts, "prompt_len_mean") or RETOKENISED_FRAC * nominal)
    shortest, longest = _optional(facts, "prompt_len_min"), _optional(facts, "prompt_len_max")
    spread = float(longest) - float(shortest) if shortest is not None and longest is not None else 0.04 * mean
    return Prompts(
        num_groups=int(_optional(facts, "effective_num_groups", "num_groups") or 10),
        num_per_group=int(_optional(facts, "effective_prompts_per_group", "prompts_per_group") or 10),
        system_tokens=round(system * mean / nominal),
        num_tokens_mean=mean,
        num_tokens_range=spread,
        num_output_tokens=int(float(_first(facts, "output_len_forced", "output_len"))),
    )


def _stage(row: pd.Series, facts: Mapping[str, Any]) -> Stage:
    number = int(row["stage"])
    own = {**facts, **_stated(row)}
    failed = int(_optional(own, "n_fail") or 0)
    answered = _optional(own, "n_ok", "n_requests_nominal")
    if number == WHOLE_RUN:
        return Stage(f"{row.name}", number, int(answered or 0), float("nan"), _milliseconds(row), failed)
    rate = _rate(own, number)
    num_requests = int(answered) + failed if answered is not None else round(rate * _duration_s(own, number))
    if _optional(own, "stages") is not None:  # a client that gave up has sent the rest as well
        num_requests = max(num_requests, round(rate * _duration_s(own, number)))
    return Stage(f"{row.name}", number, num_requests, rate, _milliseconds(row), failed)


def _rate(facts: Mapping[str, Any], number: int) -> float:
    stated = _optional(facts, "requested_rate", "rate_rps")
    if stated is None:
        return float(_stage_of(facts, number)["rate_rps"])
    found = re.findall(r"[\d.]+(?=\s*rps)", str(stated))
    return float(found[number]) if len(found) > number else float(stated)


def _duration_s(facts: Mapping[str, Any], number: int) -> float:
    if _is_stated(facts.get("stage_duration_s")):
        return float(facts["stage_duration_s"])
    return float(_stage_of(facts, number)["duration_s"])


def _stage_of(facts: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    stages: Sequence[Mapping[str, Any]] = facts.get("stages") or ()
    if len(stages) <= number:
        raise Incomplete(f"nothing says rate and length of stage {number}")
    return stages[number]


def _milliseconds(row: pd.Series) -> dict[str, float]:
    columns = (column for column in row.index if column.endswith("_ms") and "raw" not in column)
    return {column: float(row[column]) for column in columns if _is_stated(row[column])}
