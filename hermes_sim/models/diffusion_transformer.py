"""Transformers that remove noise: DiT (arXiv 2212.09748), and two streams of text and picture that attend jointly
(MMDiT of Stable Diffusion 3, arXiv 2403.03206; FLUX.1, which goes on with one stream of both).
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from hermes_sim.core.schema import Description, Dtype, NonNegativeInt, PositiveFloat, PositiveInt
from hermes_sim.models.network import Layers


class DiffusionTransformer(Description):
    """Every block is modulated: shifts, scales and gates come from time and condition, one vector a picture."""

    kind: Literal["transformer"] = "transformer"
    latent_channels: PositiveInt
    output_channels: PositiveInt | None = None
    """latent_channels if not given; twice as many where the variance is learned (DiT)."""
    patch_size: PositiveInt = 2
    """Latent pixels along a side that become one token."""
    hidden_size: PositiveInt
    head_dim: PositiveInt
    mlp_ratio: PositiveFloat = 4.0
    num_joint_blocks: NonNegativeInt = 0
    """With weights of their own for text and picture, and attention over both."""
    last_joint_drops_text: bool = False
    """The last of them computes no new text (SD3)."""
    num_single_blocks: NonNegativeInt = 0
    """One set of weights for all tokens."""
    parallel: bool = False
    """Single blocks compute attention and feed-forward from the same input (FLUX.1)."""
    text_width: NonNegativeInt = 0
    """Numbers of a text vector; 0: no text."""
    pooled_width: NonNegativeInt = 0
    """Of the pooled text that joins the time."""
    guidance_input: bool = False
    """The strength of guidance is one more input (FLUX.1-dev, guidance-distilled)."""
    num_classes: NonNegativeInt = 0
    """Rows of a class table that joins the time (DiT)."""
    position_table: NonNegativeInt = 0
    """Rows of a stored table of positions, learned or not."""
    time_features: PositiveInt = 256
    qk_norm: bool = False

    @model_validator(mode="after")
    def _has_blocks(self) -> DiffusionTransformer:
        if self.num_joint_blocks + self.num_single_blocks == 0:
            raise ValueError("needs num_joint_blocks or num_single_blocks")
        if self.num_joint_blocks and not self.text_width:
            raise ValueError("num_joint_blocks needs text_width")
        return self

    def step(self, batch: float, height: float, width: float, num_text_tokens: int, dtype: Dtype) -> Layers:
        """One pass over `batch` latents of height x width."""
        hidden, layers = self.hidden_size, Layers(dtype)
        pixels = self.patch_size**2
        picture = height * width / pixels
        text = num_text_tokens if self.text_width else 0
        layers.linear("patches", batch * picture, hidden, pixels * self.latent_channels)
        layers.num_parameters += (self.num_classes + self.position_table) * hidden
        for inputs in self._conditions():
            layers.linear("condition", batch, hidden, inputs)
            layers.linear("condition", batch, hidden, hidden)
        if text:
            layers.linear("text", batch * text, hidden, self.text_width)
        for block in range(self.num_joint_blocks):
            drops = self.last_joint_drops_text and block == self.num_joint_blocks - 1
            self._joint_block(layers, batch, picture, text, drops_text=drops)
        for _ in range(self.num_single_blocks):
            self._single_block(layers, batch, picture + text)
        layers.linear("modulation", batch, 2 * hidden, hidden)
        self._modulated_norm(layers, batch * picture)
        layers.linear("unpatch", batch * picture, pixels * (self.output_channels or self.latent_channels), hidden)
        return layers

    def _conditions(self) -> list[int]:
        """Inputs of the two-layer networks whose sum modulates the blocks."""
        guidance = [self.time_features] if self.guidance_input else []
        return [self.time_features, *guidance, *([self.pooled_width] if self.pooled_width else [])]

    def _joint_block(self, layers: Layers, batch: float, picture: float, text: float, *, drops_text: bool) -> None:
        hidden, mlp = self.hidden_size, round(self.mlp_ratio * self.hidden_size)
        for rows, ends_here in ((batch * picture, False), (batch * text, drops_text)):
            layers.linear("modulation", batch, (2 if ends_here else 6) * hidden, hidden)
            self._modulated_norm(layers, rows)
            layers.linear("qkv", rows, 3 * hidden, hidden)
            self._qk_norm(layers, rows)
            if ends_here:
                continue
            layers.linear("out", rows, hidden, hidden)
            self._gated_add(layers, rows)
            self._modulated_norm(layers, rows)
            layers.linear("up", rows, mlp, hidden)
            layers.elementwise("act", 2.0 * rows * mlp)
            layers.linear("down", rows, hidden, mlp)
            self._gated_add(layers, rows)
        layers.attention("attention", batch, picture + text, picture + text, hidden)

    def _single_block(self, layers: Layers, batch: float, tokens: float) -> None:
        hidden, mlp, rows = self.hidden_size, round(self.mlp_ratio * self.hidden_size), batch * tokens
        layers.linear("modulation", batch, (3 if self.parallel else 6) * hidden, hidden)
        self._modulated_norm(layers, rows)
        self._qk_norm(layers, rows)
        layers.attention("attention", batch, tokens, tokens, hidden)
        layers.elementwise("act", 2.0 * rows * mlp)
        self._gated_add(layers, rows)
        if self.parallel:
            layers.linear("qkv_up", rows, 3 * hidden + mlp, hidden)
            layers.linear("out_down", rows, hidden, hidden + mlp)
            return
        self._modulated_norm(layers, rows)
        layers.linear("qkv", rows, 3 * hidden, hidden)
        layers.linear("out", rows, hidden, hidden)
        layers.linear("up", rows, mlp, hidden)
        layers.linear("down", rows, hidden, mlp)
        self._gated_add(layers, rows)

    def _modulated_norm(self, layers: Layers, rows: float) -> None:
        """The norm has no weights of its own: they are the modulation's."""
        layers.norm("modulated_norm", rows, self.hidden_size, weights=0)

    def _qk_norm(self, layers: Layers, rows: float) -> None:
        """One weight a channel of a head, for queries and for keys."""
        if self.qk_norm:
            layers.norm("qk_norm", 2.0 * rows, self.hidden_size, weights=0, passes=2.0)
            layers.num_parameters += 2 * self.head_dim

    def _gated_add(self, layers: Layers, rows: float) -> None:
        layers.elementwise("gated_add", 3.0 * rows * self.hidden_size)
