"""Reads the quantisation of a Hugging Face checkpoint: which parts are stored narrower, and how.

Formats: fine-grained and per-tensor fp8 (DeepSeek, Qwen), NVIDIA ModelOpt (FP8, NVFP4; config.json or
hf_quant_config.json), mxfp4 (gpt-oss), compressed-tensors (vLLM's LLM Compressor), AWQ and GPTQ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hermes_sim.core.schema import Dtype
from hermes_sim.models.architecture import Part, Quantization

METHODS = ("awq", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4")

_MODULES: dict[Part, tuple[str, ...]] = {
    "attention": ("self_attn.q_proj", "self_attn.q_b_proj", "self_attn.qkv_proj", "self_attn.o_proj"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "experts": ("mlp.experts.0.up_proj", "block_sparse_moe.experts.0.w1", "feed_forward.experts.0.up_proj"),
    "shared_experts": ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj", "feed_forward.shared_expert.up_proj"),
    "state_space": ("linear_attn.in_proj_qkvz", "linear_attn.in_proj_qkv", "linear_attn.out_proj", "mixer.in_proj"),
}
"""What the families call the matrices of a part, below `model.layers.<i>.`; any of them excluded excludes the part."""

_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")
_MODELOPT_WIDTHS: dict[str, tuple[Dtype, Dtype | None, float]] = {
    # algorithm: stored dtype, multiplied dtype (None: the activations'), bytes of scales per weight
    "FP8": ("fp8", "fp8", 0.0),
    "FP8_PB_WO": ("fp8", "fp8", 4.0 / (128 * 128)),
    "NVFP4": ("fp4", "fp4", 1.0 / 16),
    "W4A16_NVFP4": ("fp4", None, 1.0 / 16),
    "W4A16_AWQ": ("int4", None, 2.0 / 128),
}


def read_quantization(
    config: Mapping[str, Any], parts: Sequence[Part], part_layers: Mapping[Part, Sequence[int]], activation_dtype: Dtype
) -> Quantization | None:
    """Quantisation of a config.json with the given parts, each in the given layers; None where it states none.

    Raises ValueError for a method that is not one of METHODS or a format that it does not describe.
    """
    section = quantization_section(config)
    if section is None:
        return None
    method = str(section.get("quant_method") or ("modelopt" if "quant_algo" in section else ""))
    readers = {
        "awq": _grouped_integers,
        "compressed-tensors": _compressed_tensors,
        "fp8": _fp8,
        "gptq": _grouped_integers,
        "modelopt": _modelopt,
        "modelopt_fp4": _modelopt,
        "mxfp4": _mxfp4,
    }
    if method not in readers:
        raise ValueError(f"quantisation method '{method}' cannot be read ({', '.join(METHODS)} can)")
    weight, compute, scale_bytes = readers[method](section)
    quantised = [part for part in parts if _is_quantised(part, method, section, part_layers[part])]
    if not quantised:
        return None
    return Quantization(
        method=method,
        weight_dtype=weight,
        compute_dtype=compute or activation_dtype,
        parts=tuple(quantised),
        scale_bytes_per_weight=scale_bytes,
    )


def read_kv_dtype(config: Mapping[str, Any]) -> Dtype | None:
    """KV-cache dtype that the checkpoint was calibrated for; None where it states none."""
    section = quantization_section(config) or {}
    if str(section.get("kv_cache_quant_algo", "")).upper() == "FP8":
        return "fp8"
    scheme = section.get("kv_cache_scheme")
    if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
        return "int8" if scheme.get("type") == "int" else "fp8"
    return None


def quantization_section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of a config.json that states the quantisation, hf_quant_config.json's nesting undone."""
    section = config.get("quantization_config") or config.get("quantization")
    if not section:
        return None
    if not isinstance(section, Mapping):
        raise ValueError("quantization_config is not a mapping")
    inner = section.get("quantization")
    return {**section, **inner} if isinstance(inner, Mapping) else section


def _is_quantised(part: Part, method: str, section: Mapping[str, Any], layers: Sequence[int]) -> bool:
    """Whether most layers of the part are not on the list of modules left alone."""
    if part == "lm_head":
        return bool(section.get("lm_head", False))
    if method == "mxfp4":
        return part == "experts"
    patterns = _left_alone(section)
    excluded = sum(
        any(_matches(f"layers.{layer}.{module}", pattern) for module in _MODULES[part] for pattern in patterns)
        for layer in layers
    )
    return 2 * excluded < len(layers)


def _left_alone(section: Mapping[str, Any]) -> list[str]:
    patterns: list[str] = []
    for key in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"):
        patterns += [str(pattern) for pattern in section.get(key) or ()]
    return patterns


def _matches(name: str, pattern: str) -> bool:
    """Whether a list entry (regular expression with `re:`, glob with `*`, or module name) covers the module."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], f"model.{name}") is not None
    for prefix in _PREFIXES:
        if pattern.startswith(prefix):
            pattern = pattern[len(prefix) :]
            break
    if "*" in pattern:
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or fnmatchcase(f"model.{name}", pattern)
    return f".{pattern}." in f".{name}."


def _fp8(section: Mapping[str, Any]) -> tuple[Dtype, Dtype | None, float]:
    block = section.get("weight_block_size")
    scale_bytes = 4.0 / (block[0] * block[1]) if block else 0.0
    return "fp8", "fp8", scale_bytes


def _mxfp4(section: Mapping[str, Any]) -> tuple[Dtype, Dtype | None, float]:
    """E2M1 with one E8M0 scale for 32 weights (OCP Microscaling formats 1.0); activations stay as they are."""
    return "fp4", None, 1.0 / 32


def _modelopt(section: Mapping[str, Any]) -> tuple[Dtype, Dtype | None, float]:
    algorithm = str(section.get("quant_algo", "")).upper()
    if algorithm not in _MODELOPT_WIDTHS:
        known = ", ".join(_MODELOPT_WIDTHS)
        raise ValueError(f"ModelOpt algorithm '{algorithm}' cannot be read ({known} can)")
    return _MODELOPT_WIDTHS[algorithm]


def _grouped_integers(section: Mapping[str, Any]) -> tuple[Dtype, Dtype | None, float]:
    """AWQ and GPTQ: an fp16 scale and a zero point of the weights' width for each group; multiplied in fp16."""
    bits = int(section.get("bits", section.get("w_bit", 4)))
    return _integer_dtype(bits), None, (2.0 + bits / 8) / _group_size(section)


def _compressed_tensors(section: Mapping[str, Any]) -> tuple[Dtype, Dtype | None, float]:
    groups = section.get("config_groups")
    if not groups:
        raise ValueError("compressed-tensors without config_groups says nothing of the weights' format")
    scheme = next(iter(groups.values()))
    weights = scheme["weights"]
    stored = _scheme_dtype(weights)
    activations = scheme.get("input_activations")
    compute = _scheme_dtype(activations) if activations else None
    if weights.get("strategy") == "block":
        rows, columns = weights["block_structure"]
        return stored, compute, 4.0 / (rows * columns)
    if not weights.get("group_size") or int(weights["group_size"]) < 1:
        return stored, compute, 0.0
    bytes_per_scale = 1.0 if stored == "fp4" else 2.0
    return stored, compute, bytes_per_scale / int(weights["group_size"])


def _scheme_dtype(scheme: Mapping[str, Any]) -> Dtype:
    bits = int(scheme["num_bits"])
    if scheme.get("type") == "float":
        if bits not in (4, 8):
            raise ValueError(f"{bits}-bit floating-point weights cannot be read (4 and 8 can)")
        return "fp8" if bits == 8 else "fp4"
    return _integer_dtype(bits)


def _integer_dtype(bits: int) -> Dtype:
    if bits not in (4, 8):
        raise ValueError(f"{bits}-bit integer weights cannot be read (4 and 8 can)")
    return "int8" if bits == 8 else "int4"


def _group_size(section: Mapping[str, Any]) -> float:
    """Weights that share a scale; a whole input channel (-1) makes scales negligible."""
    size = int(section.get("group_size", section.get("q_group_size", 128)))
    return float(size) if size > 0 else float("inf")
