"""Pictures or sound to vectors that join the prompt: one pass of an encoder (EPD, arXiv 2501.05460)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hermes_sim.core.rng import stream
from hermes_sim.core.schema import DTYPE_BYTES, Bytes, Description, Dtype, Fraction
from hermes_sim.models.media_encoder import MediaEncoder, Patches
from hermes_sim.models.operator import Operator
from hermes_sim.stages.stage import FloatArray, IntArray, Models, NetworkKind, Stage
from hermes_sim.workload.requests import RequestTable

BoolArray = npt.NDArray[np.bool_]


class EncoderCache(Description):
    """Vectors of earlier pictures, kept where the language model is: found, they are neither computed nor sent."""

    hit_frac: Fraction | None = None
    """Chance that a picture is found; if not given it is looked up by content."""
    capacity_bytes: Bytes | None = Field(default=None, alias="capacity", gt=0.0)
    """The least recently used picture gives way. In order of the requests' rows, as if each was encoded at once."""

    @model_validator(mode="after")
    def _one_of_both(self) -> EncoderCache:
        if (self.hit_frac is None) == (self.capacity_bytes is None):
            raise ValueError("needs one of hit_frac and capacity")
        return self


@dataclass(frozen=True, slots=True)
class Items:
    """Pictures, or clips of sound, one request after the other. [num_items] each."""

    request: IntArray
    num_sequences: IntArray
    inputs_per_sequence: IntArray
    num_tokens: IntArray
    content: IntArray


class Encode(Stage):
    """Encodes the pictures (or the sound) that a request brings; what comes out joins its prompt.

    Units: positions of the encoder. A request that brings nothing, or whose pictures are all found in the cache, passes
    over the stage.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"
    NETWORKS: ClassVar[Mapping[str, NetworkKind]] = {"model": "encoder"}

    kind: Literal["encode"] = "encode"
    model: MediaEncoder
    """An encoder of the library by its name, or one that is described here."""
    dtype: Dtype | None = None
    """Precision it runs in; the encoder's own if not given."""
    cache: EncoderCache | None = None

    @property
    def reads(self) -> Literal["pictures", "sound"]:
        """By what the encoder has in front."""
        return "pictures" if isinstance(self.model.front_end, Patches) else "sound"

    def items(self, requests: RequestTable) -> Items:
        """What there is to encode."""
        front_end, merged = self.model.front_end, self.model.projector.merged_patches
        if isinstance(front_end, Patches):
            pictures = requests.pictures
            if pictures is None:
                return Items(*(np.zeros(0, np.int64) for _ in range(5)))
            patches = front_end.resolution.patches(pictures.width, pictures.height, front_end.patch_size)
            tokens = patches.num_sequences * -(-patches.patches_per_sequence // merged)
            return Items(
                pictures.request, patches.num_sequences, patches.patches_per_sequence, tokens, pictures.content
            )
        seconds = np.zeros(0) if requests.sound_s is None else requests.sound_s
        rows = np.flatnonzero(seconds > 0.0)
        chunks = front_end.num_chunks(seconds[rows])
        heard = np.ceil(seconds[rows] * front_end.frames_per_s / front_end.stride / merged).astype(np.int64)
        return Items(rows, chunks, np.full_like(chunks, front_end.positions_per_chunk), heard, np.arange(len(rows)))

    def is_missing(self, items: Items, seed: int) -> BoolArray:
        """[num_items] not found in the cache."""
        number = len(items.request)
        if self.cache is None:
            return np.ones(number, bool)
        if self.cache.hit_frac is not None:
            return stream(seed, f"encoder cache {self.name}").random(number) >= self.cache.hit_frac
        assert self.cache.capacity_bytes is not None
        return _least_recently_used(items, self.bytes_per_token, self.cache.capacity_bytes)

    @property
    def bytes_per_token(self) -> float:
        """Of one vector that joins a prompt."""
        return self.model.output_size * DTYPE_BYTES[self.dtype or self.model.dtype]

    def prompt_tokens(self, requests: RequestTable) -> IntArray:
        """[num_requests] tokens that join each prompt, found or computed."""
        items = self.items(requests)
        return _sums(items.request, items.num_tokens, requests.num_requests).astype(np.int64)

    def sent_bytes(self, requests: RequestTable, seed: int) -> FloatArray:
        """[num_requests] vectors that go to the language model."""
        items = self.items(requests)
        sent = np.asarray(items.num_tokens * self.is_missing(items, seed) * self.bytes_per_token, np.float64)
        return _sums(items.request, sent, requests.num_requests)

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        items = self.items(requests)
        positions = items.num_sequences * self._length(items) * self.is_missing(items, seed)
        return _sums(items.request, positions, requests.num_requests)

    def most_units(self, requests: RequestTable, seed: int) -> float:
        return float(self.units_of(requests, seed).max(initial=1.0))

    def units_per_sequence(self, requests: RequestTable, seed: int) -> float:
        """Mean length of a sequence that a position is in: attention over all of them is right in the mean."""
        items = self.items(requests)
        positions = items.num_sequences * self._length(items)
        return float((positions * self._length(items)).sum() / positions.sum()) if len(positions) else 1.0

    def wanted_by(self, requests: RequestTable, seed: int) -> BoolArray:
        return np.asarray(self.units_of(requests, seed) > 0.0)

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        extra = self.model.extra_positions
        if total_units <= 0.0:
            return ()
        length = max(units_per_job, 1.0 + extra)
        return self.model.operators(max(total_units, length) / length, length - extra, self.dtype)

    def resident_bytes(self, models: Models) -> float:
        return self.model.weight_bytes(self.dtype)

    def _length(self, items: Items) -> IntArray:
        return items.inputs_per_sequence + self.model.extra_positions


def _sums(rows: IntArray, values: FloatArray | IntArray, number: int) -> FloatArray:
    """[number] sums of the values of each row."""
    return np.bincount(rows, values, number).astype(np.float64)


def _least_recently_used(items: Items, bytes_per_token: float, capacity_bytes: float) -> BoolArray:
    """[num_items] not there when it is looked up; it is from then on, if there is room for it at all."""
    kept: OrderedDict[int, float] = OrderedDict()
    missing = np.ones(len(items.content), bool)
    used_bytes = 0.0
    for place, (content, tokens) in enumerate(zip(items.content.tolist(), items.num_tokens.tolist(), strict=True)):
        if content in kept:
            kept.move_to_end(content)
            missing[place] = False
            continue
        size = tokens * bytes_per_token
        if size > capacity_bytes:
            continue
        kept[content] = size
        used_bytes += size
        while used_bytes > capacity_bytes:
            used_bytes -= kept.popitem(last=False)[1]
    return missing
