"""The decoder of a latent autoencoder: from the denoised latent to pixels (AutoencoderKL, arXiv 2112.10752)."""

from __future__ import annotations

from pydantic import Field

from hermes_sim.core.schema import Description, Dtype, PositiveInt
from hermes_sim.models.network import Layers


class LatentDecoder(Description):
    """Keys as in diffusers' AutoencoderKL; the encoder is not used to make pictures."""

    latent_channels: PositiveInt = 4
    block_channels: tuple[PositiveInt, ...] = Field(default=(128, 256, 512, 512), min_length=1)
    """Of each level, from the full picture down; a level has twice the width and height of the next."""
    layers_per_block: PositiveInt = 2
    """One more on the way up."""
    post_quantized: bool = True
    """A product over the channels of every latent pixel first (SD 1.x, SDXL)."""

    @property
    def scale(self) -> int:
        """Pixels along a side for one of the latent."""
        return int(2 ** (len(self.block_channels) - 1))

    def decode(self, batch: float, height: float, width: float, dtype: Dtype) -> Layers:
        """One pass over `batch` latents of height x width."""
        layers, channels, pixels = Layers(dtype), self.block_channels[-1], batch * height * width
        if self.post_quantized:
            layers.convolution("conv", pixels, self.latent_channels, self.latent_channels, kernel=1)
        layers.convolution("conv", pixels, channels, self.latent_channels)
        _residual(layers, pixels, channels, channels)
        layers.norm("group_norm", pixels, channels)
        layers.linear("qkv", pixels, 3 * channels, channels)
        layers.attention("attention", batch, height * width, height * width, channels)
        layers.linear("out", pixels, channels, channels)
        _residual(layers, pixels, channels, channels)
        inputs = channels
        for level, outputs in enumerate(reversed(self.block_channels)):
            for _ in range(self.layers_per_block + 1):
                _residual(layers, pixels, outputs, inputs)
                inputs = outputs
            if level < len(self.block_channels) - 1:
                pixels *= 4.0
                layers.convolution("upsample", pixels, outputs, outputs)
        layers.norm("group_norm", pixels, inputs)
        layers.convolution("conv_out", pixels, 3, inputs)
        return layers


def _residual(layers: Layers, pixels: float, outputs: int, inputs: int) -> None:
    layers.norm("group_norm", pixels, inputs)
    layers.convolution("conv", pixels, outputs, inputs)
    layers.norm("group_norm", pixels, outputs)
    layers.convolution("conv", pixels, outputs, outputs)
    if inputs != outputs:
        layers.convolution("shortcut", pixels, outputs, inputs, kernel=1)
    layers.elementwise("add", 3.0 * pixels * outputs)
