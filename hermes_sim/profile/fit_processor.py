"""Cost model of a processor from its own tables: `python -m hermes_sim.profile.fit_processor TABLES DEVICE.yaml`.

NumPy's kernels are plain: no tiles spread over cores, no split sums, a fixed time of the interpreter for each head of
attention. So few coefficients of each model are free, within bounds of their own. One shape in five is kept out of the
fit: (n, k) of products; heads, batch and lengths of attention; number of tokens and row width of small kernels.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import SHAPE, fit_structures, layers_of_heads, predict_decode, predict_prefill
from hermes_sim.calibration.device_file import read_device, replace_cost_model
from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, fit_error, summarize
from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.retrieval import fit_search
from hermes_sim.calibration.split import held_out
from hermes_sim.core.schema import Source
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseKind
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency
from hermes_sim.measured import KernelTables, read_kernels

FloatArray = npt.NDArray[np.float64]
Errors = dict[str, tuple[ErrorSummary, ...]]
"""Of the fitted rows, and of those kept out where there are any."""

GEMM: Final = (
    Coefficient("compute_frac", 0.85, 0.3, 1.0),
    Coefficient("memory_frac", 0.2, 0.05, 1.0),  # OpenBLAS copies weights into packed tiles first
    Coefficient("launch_s", 2e-6, 1e-7, 2e-5, 1e-6),
    Coefficient("serial_frac", 0.8, 0.0, 1.0),
    Coefficient("prologue_elements", 20.0, 0.0, 2000.0, 100.0),
    Coefficient("cache_speedup", 1.5, 1.0, 8.0),
)
DECODE: Final = (
    Coefficient("decode_launch_s", 5e-6, 1e-7, 1e-4, 1e-6),
    Coefficient("decode_memory_frac", 0.5, 0.02, 1.0),
    Coefficient("decode_compute_frac", 0.3, 0.01, 1.0, 0.1),
    Coefficient("decode_tile_cycles", 5e4, 0.0, 1e6, 1e4),  # one head of one sequence: the interpreter's time
    Coefficient("decode_serial_frac", 0.5, 0.0, 1.0),
    Coefficient("decode_hidden_blocks", 35.0, 1.0, 500.0, 20.0),
)
PREFILL: Final = (
    Coefficient("prefill_launch_s", 5e-6, 1e-7, 1e-4, 1e-6),
    Coefficient("prefill_compute_frac", 0.5, 0.05, 1.0, 0.1),
    Coefficient("softmax_cycles", 3.0, 0.0, 50.0, 1.0),
    Coefficient("prefill_memory_frac", 0.5, 0.05, 1.0),
    Coefficient("prefill_tile_cycles", 5e4, 0.0, 1e6, 1e4),
    Coefficient("diagonal_pairs", 64.0, 0.0, 512.0, 64.0),
    Coefficient("prefill_serial_frac", 0.5, 0.0, 1.0),
)
PLAIN_DECODE: Final = {"decode_group_rows": 0.0, "decode_splits": False}
PLAIN_PREFILL: Final = {"prefill_groups": False, "row_tokens": 256.0}
KINDS: Final[dict[str, ElementwiseKind]] = {
    "rms_norm": "norm",
    "silu_and_multiply": "activation",
    "add": "residual_add",
}
FEWEST_ROWS: Final = 2
"""Rows of a product that OpenBLAS packs weights for; a single row is a product of a vector, four times as fast."""


def fit_processor(device: Device, folder: Path) -> tuple[CostModel, Errors]:
    """Coefficients from the tables in the folder that are about this device, and errors by kernel: fitted, kept out."""
    tables = read_kernels(folder, devices=[device.name])
    products = tables["gemm"]
    errors: Errors = {}
    several = pd.DataFrame(products[products["m"] >= FEWEST_ROWS].reset_index(drop=True))
    gemm, errors["gemm, 2 rows or more"] = _fit_gemm(device, several)
    attention, errors["attention decode"], errors["attention prefill"] = _fit_attention(device, tables)
    elementwise: dict[ElementwiseKind, Any] = {}
    streams = tables["stream"]
    for kernel, kind in KINDS.items():
        rows = pd.DataFrame(streams[streams["kernel"] == kernel].reset_index(drop=True))
        widths = (rows["num_bytes"] / rows["num_tokens"]).round().astype(str)
        found, fitted, held = fit_elementwise(device, rows.assign(model=widths))
        elementwise[kind] = found.model_copy(update=_sides("", fitted, held))
        errors[f"stream {kind}"] = (fitted, held)
    search = device.cost_model.search
    if "retrieval" in tables:
        products_known = device.cost_model.model_copy(update={"gemm": {"fp32": gemm}})
        searching = device.model_copy(update={"cost_model": products_known})
        search, errors_of_searches = fit_search(searching, tables["retrieval"])
        errors |= {f"search {kind}": sides for kind, sides in errors_of_searches.items()}
    cost_model = device.cost_model.model_copy(
        update={
            "gemm": {"fp32": gemm},
            "attention_decode_memory_frac": attention.decode_memory_frac,
            "attention_prefill_compute_frac": attention.prefill_compute_frac,
            "attention": attention,
            "elementwise": elementwise,
            "elementwise_memory_frac": elementwise["norm"].memory_frac,
            "elementwise_launch_s": elementwise["norm"].launch_s,
            "kernel_launch_s": gemm.launch_s,
            "search": search,
            "source": _source(device.name, sum(len(table) for table in tables.values())),
        }
    )
    return cost_model, errors


def _fit_gemm(device: Device, table: pd.DataFrame) -> tuple[GemmEfficiency, tuple[ErrorSummary, ErrorSummary]]:
    held = held_out(table["n"], table["k"])
    rows, measured_s = table[~held], table["measured_s"].to_numpy(np.float64)

    def predict(values: dict[str, float], some: pd.DataFrame) -> FloatArray:
        known: dict[str, Any] = {**values}
        cost_model = device.cost_model.model_copy(update={"gemm": {"fp32": GemmEfficiency.model_construct(**known)}})
        return predict_gemm(device.model_copy(update={"cost_model": cost_model}), "fp32", some)

    values = fit_coefficients(GEMM, lambda values: predict(values, rows), measured_s[~held])
    predicted_s = predict(values, table)
    sides = summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])
    known: dict[str, Any] = {**values, **_sides("", *sides)}
    return GemmEfficiency.model_construct(**known), sides


def _fit_attention(
    device: Device, tables: KernelTables
) -> tuple[AttentionEfficiency, tuple[ErrorSummary, ErrorSummary], tuple[ErrorSummary, ErrorSummary]]:
    """NumPy's own kernels; rows of the paged kernel are the serving loop's, and few."""
    decodes, prompts = (tables[f"attention_{phase}"] for phase in ("decode", "prefill"))
    decodes = pd.DataFrame(decodes[decodes["kernel"] == "numpy"].reset_index(drop=True))
    cold = partial(predict_decode, benchmark=False)  # the tables' keys and values are cold
    decode, *decode_errors = fit_structures(
        device, decodes, held_out(*(decodes[name] for name in (*SHAPE, "num_seqs", "context_tokens"))),
        (PLAIN_DECODE,), lambda _: DECODE, layers_of_heads, cold,
    )  # fmt: skip
    prefill, *prefill_errors = fit_structures(
        device, prompts, held_out(*(prompts[name] for name in (*SHAPE, "num_seqs", "new_tokens", "history_tokens"))),
        (PLAIN_PREFILL,), lambda _: PREFILL, layers_of_heads, predict_prefill,
    )  # fmt: skip
    update = {**PLAIN_PREFILL, **{one.name: getattr(prefill, one.name) for one in PREFILL}}
    update |= _sides("decode_", *decode_errors) | _sides("prefill_", *prefill_errors)
    return (
        decode.model_copy(update=update),
        (decode_errors[0], decode_errors[1]),
        (prefill_errors[0], prefill_errors[1]),
    )


def _sides(start: str, fitted: ErrorSummary, held: ErrorSummary) -> dict[str, Any]:
    return {f"{start}in_sample": fit_error(fitted), f"{start}held_out": fit_error(held)}


def _source(device: str, num_rows: int) -> Source:
    return Source(
        title="hermes-sim profile cpu and retrieval, NumPy with OpenBLAS and FAISS in fp32",
        where=f"{num_rows} rows in traces/measured/{device}; one shape in five is kept out of the fit; products of one "
        "row, which run at another speed, are left out of it",
        kind="fitted",
    )


def main() -> None:
    """Fit, print the errors of both sides, write the block."""
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.profile.fit_processor", description=main.__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("device", type=Path)
    options = parser.parse_args()
    cost_model, errors = fit_processor(read_device(options.device), options.tables)
    for kernel, sides in errors.items():
        for side, found in zip(("fitted", "kept out"), sides, strict=False):
            sys.stdout.write(
                f"{kernel:24s} {side:8s} {found.num_points:4d} rows  median {found.median_frac:6.1%}  mean "
                f"{found.mean_frac:6.1%}  p90 {found.p90_frac:6.1%}  bias {found.bias_frac:+6.1%}\n"
            )
    replace_cost_model(options.device, cost_model)


if __name__ == "__main__":
    main()
