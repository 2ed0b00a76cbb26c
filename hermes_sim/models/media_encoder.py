"""Encoders of pictures and of sound: front end, transformer, projector to the vectors that join a prompt."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Dtype, NonNegativeInt, PositiveFloat, PositiveInt, Seconds, one_of
from hermes_sim.models.network import Layers, Network
from hermes_sim.models.operator import Operator
from hermes_sim.models.picture_size import RESOLUTIONS, Resolution
from hermes_sim.models.transformer_stack import TransformerStack

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Projector(Description):
    """From the encoder's vectors to those of a language model: neighbours side by side, then linear layers."""

    merged_patches: PositiveInt = 1
    """Positions that become one vector (4: two by two)."""
    pooled: bool = False
    """They are averaged, not put side by side (Gemma 3)."""
    norm: bool = False
    """A norm first, over what the linear layers get."""
    norm_per_position: bool = False
    """The norm goes over each position before they are put together (Qwen2-VL)."""
    norm_weights: PositiveInt = 2
    """Numbers a channel: weight and bias, or a weight alone (RMS norm)."""
    widths: tuple[PositiveInt, ...] = ()
    """Outputs of the linear layers; none: the vectors join the prompt as they are."""
    bias: bool = True


class FrontEnd(Description):
    """The layers before the transformer."""

    @abstractmethod
    def add_to(self, layers: Layers, num_inputs: float, hidden_size: int) -> None:
        """Adds them, for so many positions of the transformer."""


class Patches(FrontEnd):
    """Square patches of pictures, each a vector (arXiv 2010.11929)."""

    kind: Literal["patches"] = "patches"
    patch_size: PositiveInt
    """Pixels along a side."""
    num_channels: PositiveInt = 3
    num_frames: PositiveInt = 1
    """Pictures in one patch: a still one is put in so many times (Qwen2-VL: two)."""
    bias: bool = True
    resolution: Annotated[Resolution, one_of(RESOLUTIONS, "rule from size to patches")]

    @model_validator(mode="after")
    def _whole_patches(self) -> Patches:
        side = getattr(self.resolution, "multiple", None)
        if side is not None and side % self.patch_size:
            raise ValueError(f"resolution: multiple {side} is not a multiple of patch_size {self.patch_size}")
        return self

    def add_to(self, layers: Layers, num_inputs: float, hidden_size: int) -> None:
        pixels = self.num_channels * self.num_frames * self.patch_size**2
        layers.linear("patches", num_inputs, hidden_size, pixels, bias=self.bias)


class Spectrogram(FrontEnd):
    """Whisper's two convolutions over a log-mel spectrogram (arXiv 2212.04356, section 2.2).

    Sound is cut into chunks, the last one filled up with silence.
    """

    kind: Literal["spectrogram"] = "spectrogram"
    num_mel_bins: PositiveInt
    frames_per_s: PositiveFloat = 100.0
    stride: PositiveInt = 2
    """Of the second convolution: frames that one position hears."""
    kernel: PositiveInt = 3
    chunk_s: Seconds = Field(default=30.0, alias="chunk", gt=0.0)

    @property
    def positions_per_chunk(self) -> int:
        """1500 in Whisper: 30 s, 100 frames a second, two a position."""
        return round(self.chunk_s * self.frames_per_s / self.stride)

    def num_chunks(self, seconds: FloatArray) -> IntArray:
        """[num_clips] of sound of that many seconds each."""
        return np.asarray(np.ceil(seconds / self.chunk_s), np.int64)

    def add_to(self, layers: Layers, num_inputs: float, hidden_size: int) -> None:
        layers.linear("conv_1", self.stride * num_inputs, hidden_size, self.kernel * self.num_mel_bins)
        layers.linear("conv_2", num_inputs, hidden_size, self.kernel * hidden_size)
        layers.elementwise("conv_act", 2.0 * (self.stride + 1.0) * num_inputs * hidden_size)


FRONT_ENDS: dict[str, type[FrontEnd]] = {"patches": Patches, "spectrogram": Spectrogram}


class MediaEncoder(Network):
    """One encoder. Pictures and sound differ in what comes before the transformer."""

    front_end: Annotated[Patches | Spectrogram, one_of(FRONT_ENDS, "kind of front end")]
    transformer: TransformerStack
    projector: Projector = Projector()
    extra_positions: NonNegativeInt = 0
    """A sequence's own beside its patches: a class token. They do not reach the projector."""

    def num_parameters(self) -> int:
        layers = self._around(1.0, self.dtype)
        extra = self.transformer.hidden_size * self.extra_positions
        return layers.num_parameters + self.transformer.num_parameters() + extra

    def operators(self, num_sequences: float, inputs_per_sequence: float, dtype: Dtype | None) -> tuple[Operator, ...]:
        """One pass over so many tiles, pictures or clips of so many patches or frames each."""
        own = dtype or self.dtype
        length = inputs_per_sequence + self.extra_positions
        number = round(num_sequences * length)
        layers = self._around(num_sequences * inputs_per_sequence, own)
        return (*layers.merged(), *self.transformer.operators(number, round(length), own))

    def tokens_of(self, num_inputs: IntArray) -> IntArray:
        """Vectors that patches or frames of one sequence become behind the projector."""
        return np.asarray(-(-num_inputs // self.projector.merged_patches), np.int64)

    @property
    def output_size(self) -> int:
        """Numbers of a vector that joins a prompt."""
        return self.projector.widths[-1] if self.projector.widths else self._projected_size

    @property
    def _projected_size(self) -> int:
        hidden = self.transformer.hidden_size
        return hidden if self.projector.pooled else hidden * self.projector.merged_patches

    def _around(self, num_inputs: float, dtype: Dtype) -> Layers:
        """Front end and projector."""
        layers, projector = Layers(dtype), self.projector
        self.front_end.add_to(layers, num_inputs, self.transformer.hidden_size)
        rows = num_inputs / projector.merged_patches
        width = self._projected_size
        if projector.norm:
            wide = self.transformer.hidden_size if projector.norm_per_position else width
            values = rows * width if not projector.pooled else num_inputs * wide / projector.merged_patches
            layers.norm("projector_norm", values / wide, wide, weights=projector.norm_weights)
        for place, outputs in enumerate(projector.widths):
            layers.linear("projector", rows, outputs, width, bias=projector.bias)
            if place + 1 < len(projector.widths):
                layers.elementwise("projector_act", 2.0 * rows * outputs)
            width = outputs
        return layers
