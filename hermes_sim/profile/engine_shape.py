"""Shapes of the models that the reference loop runs with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder-only transformer with grouped-query attention and a gated MLP."""

    hidden: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    width: int
    """Of the MLP's middle."""
    vocabulary: int

    @property
    def kv_values_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def num_weights(self) -> int:
        """Of all layers, the embedding and the logits."""
        heads = self.num_heads + 2 * self.num_kv_heads
        layer = self.hidden * self.head_dim * (heads + self.num_heads) + 3 * self.hidden * self.width
        return self.num_layers * layer + 2 * self.vocabulary * self.hidden


MODELS: Final = {
    "tiny": ModelShape(64, 2, 4, 2, 16, 128, 256),
    "small": ModelShape(512, 4, 8, 2, 64, 1536, 8192),
    "llama_3_2_1b": ModelShape(2048, 16, 32, 8, 64, 8192, 128256),
    "llama_3_1_8b": ModelShape(4096, 32, 32, 8, 128, 14336, 128256),
}
"""Names as in the model library where there is one; tiny and small are our own, for processors and tests."""
