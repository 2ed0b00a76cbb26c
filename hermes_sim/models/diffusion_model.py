"""A latent diffusion model: text encoders, the network that removes noise step by step, the decoder to pixels."""

from __future__ import annotations

from typing import Annotated

from hermes_sim.core.schema import Description, Dtype, NonNegativeInt, PositiveInt, one_of
from hermes_sim.models.diffusion_transformer import DiffusionTransformer
from hermes_sim.models.latent_decoder import LatentDecoder
from hermes_sim.models.network import Network
from hermes_sim.models.operator import Operator
from hermes_sim.models.transformer_stack import TransformerStack
from hermes_sim.models.unet import UNet

DENOISERS: dict[str, type[Description]] = {"transformer": DiffusionTransformer, "unet": UNet}


class TextEncoder(Description):
    """One of the encoders that read the prompt."""

    transformer: TransformerStack
    num_tokens: PositiveInt
    """Longer prompts are cut, shorter ones filled up."""
    projection: NonNegativeInt = 0
    """Width that the pooled vector is projected to."""


class DiffusionModel(Network):
    """`num_parameters` and the published number are those of the network that removes noise."""

    denoiser: Annotated[UNet | DiffusionTransformer, one_of(DENOISERS, "kind of network")]
    num_text_tokens: NonNegativeInt
    """That the denoiser reads; 0: none (DiT, whose condition is a class)."""
    text_encoders: tuple[TextEncoder, ...] = ()
    decoder: LatentDecoder = LatentDecoder()

    @property
    def pixel_multiple(self) -> int:
        """Both sides of a picture are multiples of so many pixels."""
        return self.decoder.scale * self.denoiser.patch_size

    def num_parameters(self) -> int:
        return self.denoiser.step(1.0, 64.0, 64.0, self.num_text_tokens, self.dtype).num_parameters

    def resident_bytes(self, dtype: Dtype | None) -> float:
        """Weights of all parts."""
        texts = sum(
            one.transformer.num_parameters() + one.projection * one.transformer.hidden_size
            for one in self.text_encoders
        )
        pixels = self.decoder.decode(1.0, 1.0, 1.0, self.dtype).num_parameters
        return (self.num_parameters() + texts + pixels) * self.weight_bytes(dtype) / self.num_parameters()

    def step_operators(self, num_latents: float, width: int, height: int, dtype: Dtype | None) -> tuple[Operator, ...]:
        """One pass of the denoiser over latents of pictures of width x height pixels."""
        scale = self.decoder.scale
        layers = self.denoiser.step(
            num_latents, height / scale, width / scale, self.num_text_tokens, dtype or self.dtype
        )
        return layers.merged()

    def text_operators(self, num_prompts: int, dtype: Dtype | None) -> tuple[Operator, ...]:
        """Every text encoder over as many prompts."""
        own = dtype or self.dtype
        found: list[Operator] = []
        for one in self.text_encoders:
            found += one.transformer.operators(num_prompts * one.num_tokens, one.num_tokens, own)
        return tuple(found)

    def decode_operators(
        self, num_pictures: float, width: int, height: int, dtype: Dtype | None
    ) -> tuple[Operator, ...]:
        """The decoder over finished latents."""
        scale = self.decoder.scale
        return self.decoder.decode(num_pictures, height / scale, width / scale, dtype or self.dtype).merged()
