"""The model of an engine as it is held there: quantised as the file says, its KV cache in the engine's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hermes_sim.core.schema import Dtype
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.served_quantization import ServedQuantization, quantized
from hermes_sim.scenario.cluster import Engine, KvCache

SCALED_KV: Final[tuple[Dtype, ...]] = ("int8", "int6", "int5", "int4", "int3", "int2")
"""KV formats with a scale and a zero point in each group of numbers (KIVI, arXiv 2402.02750); fp8 has one a layer."""


def served_model(engine: Engine, models: Mapping[str, ModelArchitecture]) -> ModelArchitecture | None:
    """None for an engine without a model. `models`: by the names that the files use."""
    return None if engine.model is None else _in_formats(models[engine.model], engine.quantization, engine.kv_cache)


def _in_formats(
    model: ModelArchitecture, quantization: ServedQuantization | None, kv_cache: KvCache
) -> ModelArchitecture:
    if quantization is not None:
        model = quantized(model, quantization)
    dtype = kv_cache.dtype or model.kv_dtype
    scale_bytes = kv_scale_bytes_per_element(model, dtype, kv_cache)
    if dtype == model.kv_dtype and scale_bytes == model.kv_scale_bytes_per_element:
        return model
    return model.model_copy(update={"kv_dtype": dtype, "kv_scale_bytes_per_element": scale_bytes})


def kv_scale_bytes_per_element(model: ModelArchitecture, dtype: Dtype, kv_cache: KvCache) -> float:
    """Scales and zero points of a group, spread over its numbers; a group is one head's key or value unless said."""
    if kv_cache.scale_group is None and dtype not in SCALED_KV:
        return 0.0
    width = model.mla.kv_lora_rank if model.mla is not None else model.head_dim
    return kv_cache.scale_bits / 8.0 / (kv_cache.scale_group or max(width, 1))
