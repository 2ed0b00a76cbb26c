"""Where the time of each operator of a step comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.hardware.residual import Residuals, ResidualTable, encode
from hermes_sim.perf.operator_rows import COEFFICIENTS, GEMM, KIND
from hermes_sim.perf.operators.gemm import LAUNCH_S
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import ESTIMATE, engine, plain_device, tiny_model
from tests.unit.perf.test_attention_residual import corrected_device

FITTED = {"title": "test", "where": "test", "kind": "fitted"}
PRODUCTS = {"qkv", "out", "gate_up", "down"}


def measured_device(kind: dict[str, str]) -> Any:
    """One with a table of 16-bit products of 16 to 256 rows over all outputs and depths, none of longer ones."""
    axes = {"m": (16.0, 256.0, 512.0), "n": (64.0, 65536.0), "k": (64.0, 65536.0)}
    has_data = np.ones((3, 2, 2), bool)
    has_data[2] = False
    values = np.where(has_data, 0.1, 0.0)
    table = ResidualTable(axes=axes, values=encode(values, has_data))
    residuals = Residuals(device="plain", tables={"gemm_bf16": table}, source=ESTIMATE)
    return plain_device(source=kind).model_copy(update={"residuals": residuals})


def provenances(device: Any, num_tokens: int) -> dict[str, str]:
    cost = engine(tiny_model(), device)
    return {
        line.operator: line.provenance
        for line in cost.operator_table(num_tokens=num_tokens, num_sampled=num_tokens, num_decode=num_tokens)
    }


@pytest.mark.parametrize(("num_tokens", "expected"), [(16, "interpolated"), (64, "interpolated"), (480, "analytic")])
def test_products_among_measured_ones_are_interpolated(num_tokens: int, expected: str) -> None:
    found = provenances(measured_device(FITTED), num_tokens)
    products = {name: where for name, where in found.items() if any(part in name for part in PRODUCTS)}
    assert products
    assert set(products.values()) == {expected}
    assert found["norm"] == found["host"] == "analytic"


def test_without_a_table_everything_is_analytic_and_an_estimate_stays_one() -> None:
    assert set(provenances(plain_device(source=FITTED), 64).values()) == {"analytic"}
    assert set(provenances(measured_device(ESTIMATE), 64).values()) == {"estimate"}


def test_products_of_a_model_in_blocks_have_coefficients_of_their_own() -> None:
    """DeepSeek-R1 states a scale for each 128 x 128 block: attention's products take that kernel, logits bf16's."""
    device = devices()["h200_sxm"]
    cost = engine(models()["deepseek_r1"], device, tp=8, ep=8)
    lowered = cost.token_operators
    rows = {name: row for name, row in zip(lowered.names, lowered.rows, strict=True) if row[KIND] == GEMM}
    launches = {name: lowered.gemm_table[int(row[COEFFICIENTS]), LAUNCH_S] for name, row in rows.items()}
    assert device.cost_model.gemm_kernels["trtllm_fp8_block"].launch_s in launches.values()
    assert launches["router"] == device.cost_model.gemm["bf16"].launch_s
    logits = cost.sampling_operators
    assert logits.gemm_table[0, LAUNCH_S] == device.cost_model.gemm["bf16"].launch_s


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"num_decode": 4, "decode_context_sum": 1200, "num_tokens": 4}, "interpolated"),
        ({"num_decode": 4, "decode_context_sum": 24000, "num_tokens": 4}, "analytic"),
        ({"num_decode": 4, "decode_context_sum": 1200, "num_draft_tokens": 4, "num_tokens": 8}, "analytic"),
        (
            {"num_prefill": 1, "num_tokens": 300, "prefill_context_sum": 300, "prefill_token_pairs": 45150},
            "interpolated",
        ),
        (
            {"num_prefill": 1, "num_tokens": 300, "prefill_context_sum": 900, "prefill_token_pairs": 225150},
            "analytic",
        ),
    ],
)
def test_attention_among_measured_batches_is_interpolated(batch: dict[str, int], expected: str) -> None:
    """Contexts of 64 to 1024 tokens were measured, whole prompts of as many; no drafts and no chunks of history."""
    cost = engine(models()["llama_3_8b"], corrected_device())
    lines = cost.operator_table(num_sampled=1, decode_context_max=batch.get("decode_context_sum", 0) // 4, **batch)
    found = {line.operator: line.provenance for line in lines if "attention" in line.operator and line.seconds > 0.0}
    assert set(found.values()) == {expected}
