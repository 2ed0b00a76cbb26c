"""How an engine quantises the model that it serves, whatever its checkpoint: weights, activations, KV, part by part.

Schemes are named as the literature names them: `w4a16` (weights of 4 bits, activations of 16), `w4a8kv4` (and a KV
cache of 4 bits), or by their number format: fp8, mxfp4, nvfp4.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, NamedTuple, get_args

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from hermes_sim.core.schema import Description, Dtype, Fraction, NonNegativeFloat, PositiveInt
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.models.architecture import ModelArchitecture, Part, Quantization
from hermes_sim.models.parameters import part_parameters, part_quantization
from hermes_sim.models.sparsity import Sparsity


class WeightFormat(NamedTuple):
    """A number format of weights as it is stored."""

    dtype: Dtype
    activations: Dtype | None
    """What it meets in a product where the scheme does not say; None: the activations as they are."""
    group_size: int | None
    """Weights that share a scale; None: a whole output channel, or a whole matrix."""
    scale_bits: float


INTEGER_GROUP: Final = 128
"""Weights of 6 bits and less that share a scale (GPTQ, arXiv 2210.17323; AWQ, arXiv 2306.00978)."""

WEIGHT_FORMATS: Final[dict[str, WeightFormat]] = {
    "fp8": WeightFormat("fp8", "fp8", None, 16.0),
    "fp8_block": WeightFormat("fp8", "fp8", 128 * 128, 32.0),
    "fp6": WeightFormat("fp6", None, None, 16.0),
    "mxfp8": WeightFormat("fp8", "fp8", 32, 8.0),
    "mxfp6": WeightFormat("fp6", "fp6", 32, 8.0),
    "mxfp4": WeightFormat("fp4", "fp4", 32, 8.0),
    "nvfp4": WeightFormat("fp4", "fp4", 16, 8.0),
    "w2": WeightFormat("int2", None, INTEGER_GROUP, 16.0),
    "w3": WeightFormat("int3", None, INTEGER_GROUP, 16.0),
    "w4": WeightFormat("int4", None, INTEGER_GROUP, 16.0),
    "w5": WeightFormat("int5", None, INTEGER_GROUP, 16.0),
    "w6": WeightFormat("int6", None, INTEGER_GROUP, 16.0),
    "w8": WeightFormat("int8", None, None, 16.0),
}
"""Sources: OCP Microscaling Formats 1.0 (mx*: one E8M0 scale for 32 numbers); NVIDIA, NVFP4 (one E4M3 scale for 16);
DeepSeek-V3, arXiv 2412.19437, section 3.3 (fp8_block: one fp32 scale for 128 x 128); FP6-LLM, arXiv 2401.14112."""

_UNQUANTISED: Final = "w16"
_SCHEME: Final = re.compile(r"(?P<weights>[a-z]+\d+(?:_block)?)(?:a(?P<activations>\d+))?(?:kv(?P<kv>\d+))?")
_ACTIVATION_BITS: Final = {4, 6, 8, 16}
_KV_DTYPES: Final[dict[int, Dtype]] = {2: "int2", 3: "int3", 4: "int4", 8: "int8", 16: "bf16"}

EXAMPLES: Final = ("w8a8", "w4a16", "w4a8kv4", "w2a16", "w16a16kv8", "fp8", "mxfp4", "mxfp4a16", "nvfp4")


class Scheme(NamedTuple):
    """A scheme's name in parts."""

    weights: WeightFormat | None
    """None: as the checkpoint has them."""
    activations: Dtype | None
    """None: 16 bits, as the model computes."""
    kv: Dtype | None
    """None: not said, or as the model has it."""


def parse_scheme(name: str) -> Scheme:
    """A scheme by its name. ValueError where it is none."""
    match = _SCHEME.fullmatch(name)
    weights = match["weights"] if match else ""
    if match is None or weights not in (*WEIGHT_FORMATS, _UNQUANTISED):
        known = (
            f"{listed(EXAMPLES)}; weights {listed([*WEIGHT_FORMATS, _UNQUANTISED])}, then a4 to a16, then kv2 to kv16"
        )
        raise ValueError(f"{name!r} is no quantisation scheme ({known}).{did_you_mean(name, EXAMPLES)}")
    form = WEIGHT_FORMATS.get(weights)
    activations = _activations(name, form, match["activations"])
    kv_bits = match["kv"]
    if kv_bits is not None and int(kv_bits) not in _KV_DTYPES:
        raise ValueError(f"{name!r}: a KV cache has {listed(map(str, _KV_DTYPES))} bits, got {kv_bits}")
    kv = _KV_DTYPES[int(kv_bits)] if kv_bits is not None and kv_bits != "16" else None
    if kv == "int8" and form is not None and form.dtype.startswith("fp"):
        kv = "fp8"
    return Scheme(form, activations, kv)


def _activations(name: str, form: WeightFormat | None, bits: str | None) -> Dtype | None:
    """Dtype of the inputs of products; None: as the model computes."""
    if bits is None:
        if form is None or form.activations is not None:
            return form.activations if form is not None else None
        raise ValueError(f"{name!r} does not say the activations: {name}a16, {name}a8")
    if int(bits) not in _ACTIVATION_BITS:
        raise ValueError(
            f"{name!r}: activations have {listed(str(b) for b in sorted(_ACTIVATION_BITS))} bits, got {bits}"
        )
    if int(bits) == 16:
        return None
    if form is None:
        raise ValueError(f"{name!r}: narrow activations need narrow weights, w8 or less")
    family = "fp" if form.dtype.startswith("fp") else "int"
    found: Dtype = next(dtype for dtype in get_args(Dtype) if dtype == f"{family}{bits}")
    return found


def _known(name: str) -> str:
    parse_scheme(name)
    return name


SchemeName = Annotated[str, AfterValidator(_known)]


def _or_scheme(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema: the name of a scheme is short for `{scheme: NAME}`."""
    mapping = dict(schema)
    schema.clear()
    schema |= {"anyOf": [mapping, {"type": "string"}]}


class PartQuantization(Description):
    """Format of the matrices of a part. The name of a scheme is short for `{scheme: NAME}`."""

    model_config = ConfigDict(json_schema_extra=_or_scheme)

    scheme: SchemeName | None = None
    """w{2,3,4,5,6,8,16} (integers), fp8, fp8_block, fp6, mxfp8, mxfp6, mxfp4 or nvfp4; then a{4,6,8,16}: the inputs of
    the products (of fp8, mx and nvfp4: like the weights if not said); then kv{2,3,4,8,16}. As the checkpoint has it if
    not given. A device without the format multiplies in the nearest wider one that it has."""
    group_size: PositiveInt | None = None
    """Weights that share a scale; the scheme's own if not given: 128 for integers below 8 bits, 32 for mx, 16 for
    nvfp4, an output channel for w8 and fp8."""
    scale_bits: NonNegativeFloat | None = None
    """Of one scale: 16 for integers, 8 for mx and nvfp4, if not given."""
    zero_point_bits: NonNegativeFloat = 0.0
    """Of one zero point beside each scale; 0: symmetric."""
    sparsity: Sparsity | None = None
    """`2:4`: of each 4 weights 2 are kept; `{"2:4": 0.5, "1:4": 0.25}`: shares of the layers, the rest dense. Kept
    weights are stored with their positions; a device with `sparse_speedup` for the pattern skips the zeros."""
    outlier_columns_frac: Fraction = 0.0
    """Share of the input channels that a second product multiplies in 16 bits (LLM.int8, arXiv 2208.07339: 0.001)."""
    outlier_weights_frac: Fraction = 0.0
    """Share of single weights kept in 16 bits with an index (SpQR, arXiv 2306.03078: 0.01)."""
    online_rotation: bool = False
    """Inputs of the output and down projections are rotated by a Hadamard matrix first (QuaRot, arXiv 2404.00456)."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"scheme": data} if isinstance(data, str) else data

    def of_part(self, model: ModelArchitecture, part: Part) -> Quantization | None:
        """How the part is stored and multiplied; None where that is in the model's own dtype, dense and plain."""
        own = part_quantization(model, part)
        if self.scheme is not None:
            own = self._of_scheme(self.scheme, model, part)
        extras = {
            "sparsity": self.sparsity,
            "outlier_columns_frac": self.outlier_columns_frac,
            "outlier_weights_frac": self.outlier_weights_frac,
            "online_rotation": self.online_rotation,
        }
        if not any(extras.values()):
            return own
        if own is None:
            own = Quantization(
                method="none", weight_dtype=model.weight_dtype, compute_dtype=model.weight_dtype, parts=(part,)
            )
        return own.model_copy(update=extras)

    def _of_scheme(self, name: str, model: ModelArchitecture, part: Part) -> Quantization | None:
        scheme = parse_scheme(name)
        if scheme.weights is None:
            return None
        group_size = self.group_size or scheme.weights.group_size
        scale_bits = scheme.weights.scale_bits if self.scale_bits is None else self.scale_bits
        return Quantization(
            method=name,
            weight_dtype=scheme.weights.dtype,
            compute_dtype=scheme.activations or model.activation_dtype,
            parts=(part,),
            scale_bytes_per_weight=(scale_bits + self.zero_point_bits) / 8.0 / group_size if group_size else 0.0,
        )


class ServedQuantization(PartQuantization):
    """Formats in which an engine holds the model's weights, multiplies them, and keeps the KV cache."""

    model_config = ConfigDict(json_schema_extra=_or_scheme)

    parts: tuple[Part, ...] = ("attention", "mlp", "experts", "shared_experts", "state_space")
    """Matrices that it is about; embedding, norms, routers and biases stay wide."""
    per_part: dict[Part, PartQuantization] = Field(default={})
    """Parts that are treated otherwise, {lm_head: w8a16, experts: mxfp4a16}."""

    @property
    def kv_dtype(self) -> Dtype | None:
        """Of the KV cache, where the scheme says it."""
        return parse_scheme(self.scheme).kv if self.scheme is not None else None


def quantized(model: ModelArchitecture, quantization: ServedQuantization) -> ModelArchitecture:
    """The model as an engine serves it; its name, and so what it is asked for, stays."""
    present = {part for part, count in part_parameters(model).items() if count > 0}
    if model.tied_embeddings:
        present.add("lm_head")  # the embedding's weights, multiplied
    by_part: dict[Part, Quantization] = {}
    part: Part
    for part in get_args(Part):
        if part not in present:
            continue
        choice = quantization.per_part.get(part, quantization if part in quantization.parts else None)
        found = part_quantization(model, part) if choice is None else choice.of_part(model, part)
        if found is not None:
            by_part[part] = found
    kv_dtype = quantization.kv_dtype or model.kv_dtype
    return model.model_copy(update={"quantization": None, "quantization_by_part": by_part, "kv_dtype": kv_dtype})
