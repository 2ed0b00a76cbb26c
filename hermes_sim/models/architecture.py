"""What a network computes: the shape of a transformer (or state-space) model, from its public config.json."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Dtype, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Source
from hermes_sim.models.sparsity import Sparsity

Part = Literal["attention", "mlp", "experts", "shared_experts", "state_space", "lm_head"]
"""Groups of matrices that a quantised checkpoint treats alike; embedding, norms, routers and biases stay wide."""


class Moe(Description):
    """Mixture of experts in the feed-forward layers."""

    num_experts: PositiveInt
    num_experts_per_token: PositiveInt
    expert_intermediate_size: PositiveInt
    num_shared_experts: NonNegativeInt = 0
    shared_expert_intermediate_size: NonNegativeInt = 0
    """Width of all shared experts together; 0 means num_shared_experts x expert_intermediate_size."""
    shared_expert_gate: bool = False
    """The shared expert's output is scaled by a sigmoid of one learned projection (Qwen)."""
    first_dense_layers: NonNegativeInt = 0
    """Leading layers that have a plain feed-forward instead."""
    every_num_layers: PositiveInt = 1
    """Layers whose one-based index divides by this have experts."""
    router_bias: bool = False
    """One number an expert: a bias of the router, or DeepSeek-V3's score correction."""
    expert_bias: bool = False

    @property
    def shared_width(self) -> int:
        """Intermediate size of all shared experts together."""
        return self.shared_expert_intermediate_size or self.num_shared_experts * self.expert_intermediate_size


class SparseIndexer(Description):
    """Lightning indexer of DeepSeek sparse attention: picks the top_k tokens a query attends to (arXiv 2512.02556)."""

    num_heads: PositiveInt
    head_dim: PositiveInt
    top_k: PositiveInt
    num_layers: PositiveInt
    """Layers with an indexer of their own; the others reuse the choice of the last one."""


class Mla(Description):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""

    q_lora_rank: NonNegativeInt = 0
    """0: the query is not compressed."""
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    v_head_dim: PositiveInt
    indexer: SparseIndexer | None = None

    @property
    def qk_head_dim(self) -> int:
        """Width of one query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


class StateSpace(Description):
    """Recurrent layers: Mamba-2 (arXiv 2405.21060) or gated delta net (arXiv 2412.06464)."""

    kind: Literal["mamba2", "gated_delta_net"] = "mamba2"
    num_layers: PositiveInt
    state_size: PositiveInt
    """Mamba-2: the state dimension N; delta net: width of a key head."""
    num_heads: PositiveInt
    """Delta net: value heads."""
    head_dim: PositiveInt
    """Delta net: width of a value head."""
    num_groups: PositiveInt = 1
    """Heads that share B and C; delta net: query and key heads."""
    conv_kernel: PositiveInt = 4
    conv_bias: bool = False

    @property
    def inner_size(self) -> int:
        """Channels of the recurrence."""
        return self.num_heads * self.head_dim

    @property
    def conv_size(self) -> int:
        """Channels of the short convolution: x, B and C (delta net: v, k and q)."""
        return self.inner_size + 2 * self.num_groups * self.state_size

    @property
    def projection_size(self) -> int:
        """Outputs of the input projection: convolved channels, output gate, one step size a head (delta net: two)."""
        per_head = 2 if self.kind == "gated_delta_net" else 1
        return self.conv_size + self.inner_size + per_head * self.num_heads


class Quantization(Description):
    """Matrices stored narrower than `weight_dtype`."""

    method: str
    """As config.json names it: fp8, modelopt, mxfp4, compressed-tensors, awq, gptq."""
    weight_dtype: Dtype
    compute_dtype: Dtype
    """Of the matrix multiply: that of the activations; weight-only formats are widened first."""
    parts: tuple[Part, ...] = Field(min_length=1)
    scale_bytes_per_weight: float = Field(default=0.0, ge=0.0)
    """Scales and zero points, spread over the weights they belong to."""
    sparsity: Sparsity | None = None
    """Zeros in a fixed pattern, left out of memory; dense if not given."""
    outlier_columns_frac: Fraction = 0.0
    """Input channels that are multiplied apart in the activations' dtype, weights and all (LLM.int8)."""
    outlier_weights_frac: Fraction = 0.0
    """Single weights that are kept in 16 bits beside the others, each with a 16-bit index (SpQR)."""
    online_rotation: bool = False
    """Inputs of the output and down projections are rotated by a Hadamard matrix before each product (QuaRot)."""


class ModelArchitecture(Description):
    """Shape of one model; parameter counts and KV sizes follow from it (models/parameters.py)."""

    name: str
    title: str
    hugging_face_ids: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    family: Literal["decoder", "encoder", "encoder_decoder", "state_space", "hybrid"] = "decoder"
    num_layers: int = Field(ge=1, le=10_000)
    """Encoder-decoder models: of the decoder, each with cross-attention."""
    num_encoder_layers: int = Field(default=0, ge=0, le=10_000)
    """Encoder-decoder models only; the same widths as the decoder's layers."""
    hidden_size: PositiveInt
    num_heads: NonNegativeInt
    num_kv_heads: NonNegativeInt
    head_dim: NonNegativeInt
    intermediate_size: NonNegativeInt
    """Width of the dense feed-forward layers; 0 where a model has none."""
    vocab_size: NonNegativeInt
    """Rows of the embedding table, padding included; 0: an encoder that is fed vectors, not tokens."""
    max_model_len: PositiveInt
    """Longest sequence: prompt and output."""
    gated_mlp: bool = True
    """Three matrices (SwiGLU) instead of two."""
    tied_embeddings: bool = False
    embedding_size: NonNegativeInt = 0
    """Width of the embedding table where it is projected to hidden_size; 0: the same."""
    learned_positions: NonNegativeInt = 0
    """Rows of a learned position table; 0 with rotary or ALiBi positions."""
    alibi: bool = False
    """Positions as a bias of the attention scores: no table, no rotation (BLOOM)."""
    relative_position_buckets: NonNegativeInt = 0
    """Positions as a learned bias of the scores, one number a bucket and head, shared by a stack's layers (T5)."""
    token_types: NonNegativeInt = 0
    """Rows of a segment table (BERT)."""
    embedding_norm: bool = False
    """A norm right after the embedding (BERT, BLOOM)."""
    norm: Literal["rms", "layer"] = "rms"
    """LayerNorm has a bias."""
    num_norms_per_layer: PositiveInt = 2
    final_norm: bool = True
    qk_norm: Literal["none", "per_head", "per_layer"] = "none"
    """Norm of query and key: weights of one head (Qwen3) or of all heads (MiniMax-M2)."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Bias of the attention's output projection."""
    mlp_bias: bool = False
    lm_head_bias: bool = False
    attention_sinks: bool = False
    """One learned logit a head (gpt-oss)."""
    attention_output_gate: bool = False
    """The query projection also makes a gate of the same width (Qwen3-Next, Qwen3.5)."""
    parallel_attention: bool = False
    """Attention and feed-forward from the same input, summed at once (Falcon, Phi-2)."""
    sliding_window: NonNegativeInt = 0
    num_sliding_layers: NonNegativeInt = 0
    """Layers that look back only sliding_window tokens."""
    pooler: bool = False
    """Encoders: a dense layer on the first token."""
    num_labels: NonNegativeInt = 0
    """Encoders: outputs of a classification head."""
    moe: Moe | None = None
    mla: Mla | None = None
    state_space: StateSpace | None = None
    weight_dtype: Dtype = "bf16"
    """Of every matrix that `quantization` does not name."""
    activation_dtype: Dtype = "bf16"
    kv_dtype: Dtype = "bf16"
    quantization: Quantization | None = None
    quantization_by_part: dict[Part, Quantization] = Field(default={})
    """Parts that are treated otherwise than `quantization` says."""
    kv_scale_bytes_per_element: NonNegativeFloat = 0.0
    """Scales and zero points of a quantised KV cache, spread over its numbers."""
    published_num_parameters: float | None = None
    """For the test: what the authors state."""
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _an_encoder_of_its_own_or_none(self) -> ModelArchitecture:
        if (self.family == "encoder_decoder") != (self.num_encoder_layers > 0):
            raise ValueError("num_encoder_layers and family 'encoder_decoder' belong together")
        if self.num_encoder_layers and (self.mla or self.moe or self.state_space or self.num_sliding_layers):
            raise ValueError("an encoder-decoder model has plain attention and plain feed-forward layers only")
        if self.vocab_size == 0 and self.family != "encoder":
            raise ValueError("vocab_size 0 is for encoders that are fed vectors: needs family 'encoder'")
        return self

    @property
    def has_rotary_positions(self) -> bool:
        """Queries and keys are rotated by their position."""
        return not self.learned_positions and not self.alibi and not self.relative_position_buckets

    @property
    def num_attention_layers(self) -> int:
        """Layers that keep a KV cache."""
        return self.num_layers - (self.state_space.num_layers if self.state_space else 0)

    @property
    def num_full_attention_layers(self) -> int:
        """Layers that look back over the whole context."""
        return self.num_attention_layers - self.num_sliding_layers

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        if self.moe is None:
            return 0
        return self.num_layers // self.moe.every_num_layers - self.moe.first_dense_layers // self.moe.every_num_layers

    @property
    def num_dense_layers(self) -> int:
        """Layers with a plain feed-forward."""
        return self.num_layers - self.num_moe_layers if self.intermediate_size > 0 else 0
