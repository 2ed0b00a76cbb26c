"""The U-Net that removes noise in latent diffusion (arXiv 2112.10752; SDXL: arXiv 2307.01952), block by block.

Convolutions are products over the pixels of their result; every level has half the width and height of the one before.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Dtype, NonNegativeInt, PositiveInt
from hermes_sim.models.network import Layers


class UNet(Description):
    """Keys as in the UNet2DConditionModel of diffusers."""

    kind: Literal["unet"] = "unet"
    latent_channels: PositiveInt = 4
    block_channels: tuple[PositiveInt, ...] = Field(min_length=1)
    """Of each level, from the full latent down."""
    layers_per_block: PositiveInt = 2
    """Residual blocks of a level on the way down; one more on the way up."""
    transformer_layers: tuple[NonNegativeInt, ...]
    """Of each level, behind every residual block; 0: none."""
    mid_transformer_layers: PositiveInt = 1
    text_width: PositiveInt
    """Numbers of a text vector that the cross-attention reads."""
    time_width: PositiveInt = 1280
    added_width: NonNegativeInt = 0
    """Further conditions beside the time: pooled text and picture sizes (SDXL: 2816)."""

    @model_validator(mode="after")
    def _same_levels(self) -> UNet:
        if len(self.transformer_layers) != len(self.block_channels):
            levels, others = len(self.transformer_layers), len(self.block_channels)
            raise ValueError(f"transformer_layers has {levels} levels, block_channels {others}")
        return self

    @property
    def patch_size(self) -> int:
        """Latent pixels along a side that the network needs at least."""
        return int(2 ** (len(self.block_channels) - 1))

    def step(self, batch: float, height: float, width: float, num_text_tokens: int, dtype: Dtype) -> Layers:
        """One pass over `batch` latents of height x width."""
        return _Pass(self, batch, height * width, num_text_tokens, dtype).layers


class _Pass:
    """Walks the network once and collects its layers."""

    def __init__(self, unet: UNet, batch: float, pixels: float, num_text_tokens: int, dtype: Dtype) -> None:
        self.unet, self.batch, self.num_text_tokens = unet, batch, num_text_tokens
        self.layers = Layers(dtype)
        self.pixels = pixels
        """Of one latent on the present level."""
        channels, time = unet.block_channels, unet.time_width
        self._dense("time", time, channels[0])
        self._dense("time", time, time)
        if unet.added_width:
            self._dense("added", time, unet.added_width)
            self._dense("added", time, time)
        self._conv("conv_in", channels[0], unet.latent_channels)
        self._up(self._down())
        self._norm(channels[0])
        self._conv("conv_out", unet.latent_channels, channels[0])

    def _down(self) -> list[int]:
        """Returns the channels of what the way up joins again, first to last."""
        unet, joined, width = self.unet, [self.unet.block_channels[0]], self.unet.block_channels[0]
        last = len(unet.block_channels) - 1
        for level, channels in enumerate(unet.block_channels):
            for _ in range(unet.layers_per_block):
                self._residual(width, channels)
                self._transformer(channels, unet.transformer_layers[level])
                width = channels
                joined.append(channels)
            if level < last:
                self.pixels /= 4.0
                self._conv("downsample", channels, channels, stride=2)
                joined.append(channels)
        self._residual(width, width)
        self._transformer(width, unet.mid_transformer_layers)
        self._residual(width, width)
        return joined

    def _up(self, joined: list[int]) -> None:
        unet, width = self.unet, self.unet.block_channels[-1]
        for level in reversed(range(len(unet.block_channels))):
            channels = unet.block_channels[level]
            for _ in range(unet.layers_per_block + 1):
                self._residual(width + joined.pop(), channels)
                self._transformer(channels, unet.transformer_layers[level])
                width = channels
            if level > 0:
                self.pixels *= 4.0
                self._conv("upsample", channels, channels)

    def _residual(self, inputs: int, outputs: int) -> None:
        self._norm(inputs)
        self._conv("conv", outputs, inputs)
        self._dense("time", outputs, self.unet.time_width)
        self._norm(outputs)
        self._conv("conv", outputs, outputs)
        if inputs != outputs:
            self._conv("shortcut", outputs, inputs, kernel=1)
        self.layers.elementwise("add", 3.0 * self.batch * self.pixels * outputs)

    def _transformer(self, width: int, num_layers: int) -> None:
        """Self-attention over pixels, cross-attention to the text, gated feed-forward of four times the width."""
        if num_layers == 0:
            return
        layers, rows, batch, text = self.layers, self.batch * self.pixels, self.batch, self.num_text_tokens
        self._norm(width)
        layers.linear("proj", rows, width, width, count=2)
        layers.norm("norm", rows, width, count=3 * num_layers)
        layers.linear("qkv", rows, 3 * width, width, bias=False, count=num_layers)
        layers.attention("self_attention", batch, self.pixels, self.pixels, width, count=num_layers)
        layers.linear("out", rows, width, width, count=2 * num_layers)
        layers.linear("cross_q", rows, width, width, bias=False, count=num_layers)
        layers.linear("cross_kv", batch * text, 2 * width, self.unet.text_width, bias=False, count=num_layers)
        layers.attention("cross_attention", batch, self.pixels, text, width, count=num_layers)
        layers.linear("up", rows, 8 * width, width, count=num_layers)
        layers.elementwise("act", 12.0 * rows * width, count=num_layers)
        layers.linear("down", rows, width, 4 * width, count=num_layers)
        layers.elementwise("add", 3.0 * rows * width, count=3 * num_layers + 1)

    def _conv(self, name: str, outputs: int, inputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        self.layers.convolution(name, self.batch * self.pixels, outputs, inputs, kernel=kernel, stride=stride)

    def _dense(self, name: str, outputs: int, inputs: int) -> None:
        self.layers.linear(name, self.batch, outputs, inputs)

    def _norm(self, width: int) -> None:
        """Group norm with the activation behind it."""
        self.layers.norm("group_norm", self.batch * self.pixels, width)
