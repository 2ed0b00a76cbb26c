"""The operators of a model by what kind of hardware they suit, and the activations that go from one kind to another.

The classes are those along which systems divide a model: matrices of weights (compute-in-memory macros, NPUs),
attention over the KV cache (PIM: AttAcc, NeuPIMs; CPUs beside host memory: FastDecode, NEO arXiv 2411.01142), experts
(CPUs: KTransformers), and the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import kv_elements_per_token_per_layer

OperatorClass = Literal["linear", "attention", "prefill_attention", "experts", "rest"]
"""linear: products with weights, those of experts left out; attention: over the KV cache, which lies there, and
recurrences; prefill_attention: of prompts; experts: the chosen experts of a layer, from dispatch to combination; rest:
embedding, norms, rotary embedding, activations, sampling."""
CLASSES: tuple[OperatorClass, ...] = ("linear", "attention", "prefill_attention", "experts", "rest")

Phase = Literal["decode", "prefill"]

EXPERTS = frozenset({"experts_up", "experts_act", "experts_down", "experts_combine", "experts_all_reduce"})


class Crossing(NamedTuple):
    """Activations that pass from one unit to another in each step."""

    source: int
    target: int
    num_messages: int
    """Of one step, all layers."""
    bytes_per_token: float
    """Of all messages together."""


def operator_class(name: str, kind: str) -> OperatorClass:
    """Of an operator of models/forward.py that depends on the number of tokens; all-reduces go with the matrices."""
    if name in EXPERTS:
        return "experts"
    return "linear" if kind in ("gemm", "collective") else "rest"


def token_crossings(
    model: ModelArchitecture, unit_of: Mapping[OperatorClass, int], phase: Phase
) -> tuple[Crossing, ...]:
    """Of a step's layers; phase: a step of decodes only, or one with prompts, counted as if all tokens were theirs.

    The residual stream lies where the norms are. A layer goes norm, query-key-value, rotary embedding, attention,
    output, norm, feed-forward. Keys and values of prompts go to where decodes will attend as well.
    """
    hops = [*_attention_hops(model, unit_of, phase), *_recurrent_hops(model, unit_of), *_mlp_hops(model, unit_of)]
    return merged((source, target, layers, width * DTYPE_BYTES[model.activation_dtype])
                  for source, target, layers, width in hops)  # fmt: skip


def sampling_crossings(model: ModelArchitecture, unit_of: Mapping[OperatorClass, int]) -> tuple[Crossing, ...]:
    """Hidden states to the output matrix, logits to the sampler."""
    wide = DTYPE_BYTES[model.activation_dtype]
    linear, rest = unit_of["linear"], unit_of["rest"]
    return merged([(rest, linear, 1, model.hidden_size * wide), (linear, rest, 1, model.vocab_size * wide)])


Hop = tuple[int, int, int, float]
"""From, to, layers, and numbers (or bytes) of one token in one layer."""


def merged(hops: Iterator[Hop] | list[Hop]) -> tuple[Crossing, ...]:
    """By direction; hops that stay on one unit are none."""
    found: dict[tuple[int, int], Crossing] = {}
    for source, target, layers, num_bytes in hops:
        if source == target or layers == 0:
            continue
        before = found.get((source, target), Crossing(source, target, 0, 0.0))
        messages, moved = before.num_messages + layers, before.bytes_per_token + layers * num_bytes
        found[source, target] = Crossing(source, target, messages, moved)
    return tuple(found[key] for key in sorted(found))


def _attention_hops(model: ModelArchitecture, unit_of: Mapping[OperatorClass, int], phase: Phase) -> Iterator[Hop]:
    layers, hidden = model.num_attention_layers, model.hidden_size
    if layers == 0:
        return
    linear, rest = unit_of["linear"], unit_of["rest"]
    cache = unit_of["attention"]
    attending = cache if phase == "decode" else unit_of["prefill_attention"]
    query, key_value, output = _attention_widths(model)
    yield rest, linear, layers, hidden
    if model.has_rotary_positions and rest != linear:
        yield linear, rest, layers, query + key_value
        yield rest, attending, layers, query + key_value
        attended_from = rest
    else:
        yield linear, attending, layers, query + key_value
        attended_from = linear
    if attending != cache:
        yield (attended_from if attended_from != cache else attending), cache, layers, key_value
    yield attending, linear, layers, output
    yield linear, rest, layers, hidden


def _attention_widths(model: ModelArchitecture) -> tuple[float, float, float]:
    """Numbers of a token's queries, keys with values, and outputs; MLA's absorbed queries and outputs are latents."""
    if model.mla is None:
        query = model.num_heads * model.head_dim
        return query, 2 * model.num_kv_heads * model.head_dim, query
    latent = model.mla.kv_lora_rank
    query = model.num_heads * (latent + model.mla.qk_rope_head_dim)
    return query, kv_elements_per_token_per_layer(model), model.num_heads * latent


def _recurrent_hops(model: ModelArchitecture, unit_of: Mapping[OperatorClass, int]) -> Iterator[Hop]:
    recurrent = model.state_space
    if recurrent is None:
        return
    linear, attending, rest = unit_of["linear"], unit_of["attention"], unit_of["rest"]
    yield rest, linear, recurrent.num_layers, model.hidden_size
    yield linear, rest, recurrent.num_layers, recurrent.projection_size
    yield rest, attending, recurrent.num_layers, recurrent.projection_size
    yield attending, linear, recurrent.num_layers, recurrent.inner_size
    yield linear, rest, recurrent.num_layers, model.hidden_size


def _mlp_hops(model: ModelArchitecture, unit_of: Mapping[OperatorClass, int]) -> Iterator[Hop]:
    """Dense and shared feed-forward through the matrices, chosen experts where they lie."""
    hidden, inputs = model.hidden_size, 2 if model.gated_mlp else 1
    linear, experts, rest = unit_of["linear"], unit_of["experts"], unit_of["rest"]
    widths = [(model.num_dense_layers, model.intermediate_size)]
    if model.moe is not None:
        yield rest, experts, model.num_moe_layers, hidden
        yield experts, rest, model.num_moe_layers, hidden
        widths.append((model.num_moe_layers, model.moe.shared_width))
    for layers, width in widths:
        yield rest, linear, layers, hidden  # of a layer of experts: to the router, at least
        if width > 0:
            yield linear, rest, layers, inputs * width
            yield rest, linear, layers, width
            yield linear, rest, layers, hidden
