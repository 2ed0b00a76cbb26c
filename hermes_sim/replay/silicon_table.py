"""Reads tables of closed-loop serving benchmarks: one row a run, TTFT and TPOT at a concurrency.

Columns: model_path, system, backend, isl, osl, concurrency, tp_size (or prefill_ and decode_ ones where prefill and
decode run apart), silicon_ttft_ms, silicon_tpot_ms; optional id, origin, image, backend_version, measured, precision,
gemm_quant_mode, moe_quant_mode, batch_size, pp_size, attention_dp_size, moe_tp_size, moe_ep_size, num_workers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.errors import Problem

NEEDED: Final = frozenset(
    {"model_path", "system", "backend", "isl", "osl", "concurrency", "silicon_ttft_ms", "silicon_tpot_ms"}
)
"""Columns that tell such a table from others; beside them tp_size, or prefill_tp_size and decode_tp_size."""

SIDES: Final = ("prefill_", "decode_")


@dataclass(frozen=True, slots=True)
class Layout:
    """One engine of a run: how its devices share the work."""

    tp: int
    """Of the attention and the dense layers, within a rank."""
    pp: int
    dp: int
    """Ranks of data-parallel attention."""
    ep: int
    """Shares the experts are spread over."""
    num_workers: int | None
    """Equal engines; None where the table does not say."""

    @property
    def num_devices(self) -> int:
        """Of one engine."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class ServingRun:
    """One row: a configuration, its load, and what was measured."""

    row: str
    model: str
    system: str
    backend: str
    precision: str
    gemm_mode: str
    moe_mode: str
    isl: int
    osl: int
    concurrency: int
    engines: tuple[Layout, ...]
    """One that serves both, or prefill and decode."""
    ttft_s: float
    tpot_s: float
    is_drawn: bool
    """Lengths drawn in [0.8, 1] of nominal, as the public InferenceX benchmark does; else every one is nominal."""
    series: tuple[str, ...]
    """What rows of one benchmark session have in common: software image and day."""

    @property
    def is_disaggregated(self) -> bool:
        """Prefill and decode in engines of their own."""
        return len(self.engines) > 1


def is_silicon_table(columns: frozenset[str]) -> bool:
    """Whether a table with these columns is of this kind."""
    return columns >= NEEDED and ("tp_size" in columns or {f"{side}tp_size" for side in SIDES} <= columns)


def read_silicon_table(path: Path, name: str) -> Iterator[ServingRun | Problem]:
    """Rows in the order of the file; malformed ones as problems, with their line."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, EOFError) as error:
        yield Problem(name, None, "", f"cannot be read: {error}")
        return
    for number, values in enumerate(table.to_dict("records")):
        reader = _Row({str(key): str(value).strip() for key, value in values.items()})
        try:
            yield _read_run(reader, number)
        except ValueError as error:
            row = reader.values.get("id") or f"row {number + 1}"
            yield Problem(name, number + 2, reader.last, f"{error} (row {row!r})")


class _Row:
    """Values of one row, and which was asked for last."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.last = ""

    def text(self, key: str) -> str:
        self.last = key
        value = self.values.get(key, "")
        return "" if value.casefold() in ("nan", "none", "null") else value

    def number(self, key: str, default: float | None = None) -> float:
        text = self.text(key)
        if not text:
            if default is None:
                raise ValueError("needs a number, is empty")
            return default
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"needs a number, got {text!r}") from None
        if not isfinite(value) or value <= 0.0:
            raise ValueError(f"needs a number above 0, got {text}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise ValueError(f"needs a whole number, got {value:g}")
        return int(value)


def _read_run(row: _Row, number: int) -> ServingRun:
    texts: dict[str, str] = {}
    for key in ("model_path", "system", "backend"):
        texts[key] = row.text(key)
        if not texts[key]:
            raise ValueError("needs a name, is empty")
    concurrency = row.count("concurrency")
    sides = ("",) if row.text("tp_size") else SIDES
    origin = row.text("origin").casefold()
    return ServingRun(
        row=row.text("id") or f"row {number + 1}",
        model=texts["model_path"],
        system=texts["system"],
        backend=texts["backend"].casefold(),
        precision=row.text("precision").casefold(),
        gemm_mode=row.text("gemm_quant_mode").casefold(),
        moe_mode=row.text("moe_quant_mode").casefold(),
        isl=row.count("isl"),
        osl=row.count("osl"),
        concurrency=concurrency,
        engines=tuple(_layout(row, side, concurrency) for side in sides),
        ttft_s=row.number("silicon_ttft_ms") * 1e-3,
        tpot_s=row.number("silicon_tpot_ms") * 1e-3,
        is_drawn="internal" not in origin,
        series=(row.text("image") or row.text("backend_version"), row.text("measured")),
    )


def _layout(row: _Row, side: str, concurrency: int) -> Layout:
    """Degrees of parallelism as the engine was started with.

    Two habits of such tables are undone. Where experts are cut both ways by the same degree n, some exports state
    n x n devices (and n x n ranks) for n: what was asked of the engine is n devices with n expert shares. Where ranks
    of data-parallel attention are left out, the batch of one rank tells their number.
    """
    tp = row.count(f"{side}tp_size")
    pp = row.count(f"{side}pp_size", 1)
    moe_tp, ep = row.count(f"{side}moe_tp_size", 1), row.count(f"{side}moe_ep_size", 1)
    workers = row.count(f"{side}num_workers") if row.text(f"{side}num_workers") else None
    is_stated = bool(row.text(f"{side}attention_dp_size"))
    dp = row.count(f"{side}attention_dp_size", 1)
    if not is_stated and row.text(f"{side}batch_size") and ep > 1:
        ranks = concurrency / (row.number(f"{side}batch_size") * (workers or 1))
        if ranks > 1 and tp % ranks == 0:
            return Layout(tp=tp // int(ranks), pp=pp, dp=int(ranks), ep=min(ep, tp), num_workers=workers)
    if moe_tp == ep > 1 and tp * dp == moe_tp * ep and _started_with(row, ep):
        tp, dp = (ep, 1) if dp == 1 else (1, ep)
    return Layout(tp=tp, pp=pp, dp=dp, ep=ep, num_workers=workers)


def _started_with(row: _Row, degree: int) -> bool:
    """Whether the row's id names `degree` devices; without such an id, more devices than a board holds tell."""
    found = re.search(r"_tp(\d+)(?:_\d)?_ep(\d+)", row.values.get("id", ""))
    return int(found[1]) == degree if found else degree > 2
