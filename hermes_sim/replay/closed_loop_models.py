"""The model of a serving run: a shape of the library under the quantisation that the run states."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture, Part, Quantization
from hermes_sim.replay.split import FITTED_CLOSED_LOOP_MODELS
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import NotFound, entries, find

_SUFFIX: Final = re.compile(r"[-_.](nvfp4|mxfp4|fp4|fp8|bf16|w4afp8)([-_.]?(v\d+|kv|block|dynamic|static))?$", re.I)
"""How the names of quantised checkpoints end."""

NARROW: Final[dict[str, tuple[Dtype, float]]] = {
    # stated mode: stored dtype, bytes of scales per weight
    "fp8": ("fp8", 0.0),
    "fp8_static": ("fp8", 0.0),
    "fp8_block": ("fp8", 4.0 / (128 * 128)),
    "fp4": ("fp4", 1.0 / 16),
    "nvfp4": ("fp4", 1.0 / 16),
    "w4a8_mxfp4_mxfp8": ("fp4", 1.0 / 32),
    "w4a16_mxfp4": ("fp4", 1.0 / 32),
    "mxfp4": ("fp4", 1.0 / 32),
}

EXPERT_PARTS: Final[tuple[Part, ...]] = ("experts", "shared_experts", "mlp")
"""What four-bit checkpoints of mixture-of-experts models store narrower; their attention stays wide."""


class UnknownModelError(LookupError):
    """No shape in the library has that name."""


def serving_model(name: str, precision: str, gemm_mode: str, moe_mode: str, device: Device) -> ModelArchitecture:
    """Architecture under a stated quantisation. Raises UnknownModelError.

    gemm_mode, moe_mode: of dense layers and of experts (fp8, fp8_block, nvfp4, ...); precision stands for both where
    they are empty. A four-bit checkpoint whose activations the device cannot multiply in four bits is widened first; a
    checkpoint that the library knows by its own name, or that is published in the stated width, stays as it is.
    """
    base, is_checkpoint = _base(name)
    gemm_mode, moe_mode = gemm_mode or precision, moe_mode or gemm_mode or precision
    if not (is_checkpoint or _is_stored_as(base, moe_mode if base.moe is not None else gemm_mode)):
        base = _quantised(base, gemm_mode, moe_mode)
    return _multiplied_on(base, device)


def library_model(name: str) -> ModelArchitecture:
    """Shape of a model whatever its checkpoint's quantisation. Raises UnknownModelError."""
    return _base(name)[0]


def is_fitted(model: ModelArchitecture) -> bool:
    """Whether runs of this model, in whatever quantisation and under whatever name, may fit coefficients."""
    return _shape(model) in {_shape(library_model(name)) for name in FITTED_CLOSED_LOOP_MODELS}


def shape_of(name: str) -> str:
    """The same for all checkpoints of one architecture, under whatever names; the name itself where it is unknown."""
    try:
        return _shape(library_model(name))
    except UnknownModelError:
        return name


def _shape(model: ModelArchitecture) -> str:
    """What two checkpoints of one architecture have in common."""
    return str((model.num_layers, model.hidden_size, model.num_heads, model.intermediate_size, model.moe, model.mla))


@lru_cache(maxsize=256)
def _base(name: str) -> tuple[ModelArchitecture, bool]:
    """Shape, and whether the library knows this very checkpoint as a quantised one."""
    found = _known(name)
    if found is not None:
        return found, bool(_SUFFIX.search(name))
    stripped = name
    while (cut := _SUFFIX.sub("", stripped)) != stripped:
        stripped = cut
        found = _known(stripped) or _known(stripped.rsplit("/", 1)[-1]) or _same_last_part(stripped)
        if found is not None:
            return found, False
    found = _same_last_part(name)
    if found is None:
        raise UnknownModelError(f"no model '{name}' in the library")
    return found, False


def _known(name: str) -> ModelArchitecture | None:
    try:
        path = find("model", name)
    except NotFound:
        return None
    return read_description(ModelArchitecture, path)


def _same_last_part(name: str) -> ModelArchitecture | None:
    """A checkpoint that another owner published under the same name, instruction-tuned or not."""
    wanted = _last_part(name)
    for entry in entries("model"):
        if any(_last_part(known) == wanted for known in entry.names):
            return read_description(ModelArchitecture, entry.path)
    return None


def _last_part(name: str) -> str:
    return re.sub(r"-(instruct|chat|it|hf|base)$", "", name.rsplit("/", 1)[-1].casefold())


def _is_stored_as(model: ModelArchitecture, mode: str) -> bool:
    """Whether the published checkpoint has the width that a run states: it is then the one that was served."""
    quantization = model.quantization
    return quantization is not None and mode in NARROW and NARROW[mode][0] == quantization.weight_dtype


def _quantised(model: ModelArchitecture, gemm_mode: str, moe_mode: str) -> ModelArchitecture:
    """Matrices stored as the run states; experts alone where four bits are stated for a mixture of experts."""
    mode = moe_mode if model.moe is not None else gemm_mode
    if mode not in NARROW:
        return model if mode == "" else model.model_copy(update={"quantization": None})
    dtype, scale_bytes = NARROW[mode]
    parts: tuple[Part, ...]
    if model.moe is not None and dtype == "fp4":
        parts = EXPERT_PARTS
    else:
        parts = ("attention", "mlp", "experts", "shared_experts", "state_space")
    present = {
        "attention": True,
        "mlp": model.intermediate_size > 0,
        "experts": model.moe is not None,
        "shared_experts": model.moe is not None and model.moe.shared_width > 0,
        "state_space": model.state_space is not None,
    }
    quantization = Quantization(
        method=mode,
        weight_dtype=dtype,
        compute_dtype=dtype,
        parts=tuple(part for part in parts if present[part]),
        scale_bytes_per_weight=scale_bytes,
    )
    return model.model_copy(update={"quantization": quantization})


def _multiplied_on(model: ModelArchitecture, device: Device) -> ModelArchitecture:
    """Formats that the device cannot multiply are widened to the activations' before.

    Where it has four-bit units, mxfp4 weights meet mxfp8 activations (VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8, TensorRT-LLM
    W4A8_MXFP4_MXFP8).
    """
    quantization = model.quantization
    if quantization is None:
        return model
    dtype = quantization.compute_dtype
    if dtype not in device.peak_flops_per_s:
        dtype = model.activation_dtype
    elif quantization.method == "mxfp4" and "fp4" in device.peak_flops_per_s and "fp8" in device.peak_flops_per_s:
        dtype = "fp8"
    return model.model_copy(update={"quantization": quantization.model_copy(update={"compute_dtype": dtype})})
