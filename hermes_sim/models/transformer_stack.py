"""A plain stack of transformer layers inside a larger network: a vision tower, a text encoder."""

from __future__ import annotations

from typing import Literal

from hermes_sim.core.schema import Description, Dtype, NonNegativeInt, PositiveInt
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import encoder_operators
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import num_parameters


class TransformerStack(Description):
    """Shape of the layers; what is not stated is as in a vision transformer (arXiv 2010.11929)."""

    num_layers: PositiveInt
    hidden_size: PositiveInt
    num_heads: PositiveInt
    head_dim: PositiveInt
    intermediate_size: PositiveInt
    gated_mlp: bool = False
    norm: Literal["rms", "layer"] = "layer"
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    key_bias: bool = True
    """Whisper's keys have none though its queries and values have."""
    qk_norm: Literal["none", "per_head", "per_layer"] = "none"
    layer_scale: bool = False
    """One learned factor a channel behind attention and feed-forward (InternViT)."""
    learned_positions: NonNegativeInt = 0
    """Rows of a table; 0: rotary positions, or a fixed bias."""
    rotary: bool = False
    relative_position_buckets: NonNegativeInt = 0
    """T5."""
    vocab_size: NonNegativeInt = 0
    """Text encoders; 0: fed vectors."""
    embedding_norm: bool = False
    """A norm before the first layer."""
    final_norm: bool = True

    def architecture(self, dtype: Dtype) -> ModelArchitecture:
        """The stack as a model of the family `encoder`."""
        return ModelArchitecture(
            name="stack",
            title="stack",
            family="encoder",
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            head_dim=self.head_dim,
            intermediate_size=self.intermediate_size,
            vocab_size=self.vocab_size,
            max_model_len=max(self.learned_positions, 1),
            gated_mlp=self.gated_mlp,
            learned_positions=self.learned_positions,
            alibi=not (self.rotary or self.learned_positions or self.relative_position_buckets),
            relative_position_buckets=self.relative_position_buckets,
            embedding_norm=self.embedding_norm,
            norm=self.norm,
            final_norm=self.final_norm,
            qk_norm=self.qk_norm,
            qkv_bias=self.qkv_bias,
            output_bias=self.output_bias,
            mlp_bias=self.mlp_bias,
            weight_dtype=dtype,
            activation_dtype=dtype,
            sources={},
        )

    def num_parameters(self) -> int:
        """Embedding and position table included."""
        no_key_bias = 0 if self.key_bias or not self.qkv_bias else self.num_layers * self.hidden_size
        scales = 2 * self.num_layers * self.hidden_size if self.layer_scale else 0
        return num_parameters(self.architecture("bf16")) - no_key_bias + scales

    def operators(self, num_positions: int, sequence_len: int, dtype: Dtype) -> tuple[Operator, ...]:
        """One pass over `num_positions` in sequences of `sequence_len`, in which everyone attends to everyone."""
        return encoder_operators(self.architecture(dtype), num_positions, sequence_len)
