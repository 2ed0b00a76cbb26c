"""Pictures in prompts: a number of tokens each that is stated, or a size that an encoder makes tokens of.

A vision encoder turns a picture into tokens behind the text (576 in LLaVA-1.5, arXiv 2310.03744: 24 x 24 patches),
which are computed and cached like other prompt tokens. What the encoder itself does is a stage (`kind: encode`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from hermes_sim.workload.media import Pictures, with_earlier_turns
from hermes_sim.workload.requests import FloatArray, IntArray, RequestTable, first_of_session


class PictureSize(Description):
    """One size of several."""

    width: PositiveInt
    """Pixels."""
    height: PositiveInt
    weight: PositiveFloat = 1.0
    """Of pictures of this size, relative to the others."""


class Popularity(Description):
    """Pictures that are sent again and again: the i-th most popular as often as i to the power of -exponent."""

    num_distinct: PositiveInt
    exponent: NonNegativeFloat = 1.0
    """0: all alike; 1: Zipf's law."""

    def contents(self, uniforms: FloatArray) -> IntArray:
        """[num_pictures] which picture, by rank."""
        edges = np.cumsum(np.arange(1, self.num_distinct + 1, dtype=np.float64) ** -self.exponent)
        ranks = np.searchsorted(edges, uniforms * edges[-1], side="right")
        return np.asarray(np.minimum(ranks, self.num_distinct - 1), np.int64)


class Images(Description):
    """Pictures that requests add to their prompts, on top of what `lengths` says."""

    share: Fraction = 1.0
    """Of the requests that bring pictures."""
    per_request: Literal["fixed", "geometric"] = "fixed"
    mean_num_images: Annotated[float, Field(ge=1.0)] = 1.0
    """In a request that brings any. With `fixed` a whole number."""
    tokens_per_image: PositiveInt | None = None
    """Stated; if not given, what the stages of kind `encode` make of the sizes."""
    sizes: tuple[PictureSize, ...] = ()
    """Of the pictures, drawn by weight."""
    popularity: Popularity | None = None
    """No two pictures are the same if not given."""

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.per_request == "fixed" and not self.mean_num_images.is_integer():
            raise ValueError(f"per_request: fixed needs a whole mean_num_images, not {self.mean_num_images:g}")
        if self.tokens_per_image is None and not self.sizes:
            raise ValueError("needs tokens_per_image, or sizes for a stage of kind encode")
        if self.popularity is not None and not self.sizes:
            raise ValueError("popularity needs sizes")
        return self

    def num_images(self, rng: np.random.Generator, num_requests: int) -> IntArray:
        """[num_requests], two draws a request: by inversion, so that a request's own do not depend on the others."""
        for_share, for_number = rng.random((num_requests, 2)).T
        number = np.full(num_requests, self.mean_num_images)
        if self.per_request == "geometric" and self.mean_num_images > 1.0:
            number = 1.0 + np.floor(np.log1p(-for_number) / np.log1p(-1.0 / self.mean_num_images))
        return np.where(for_share < self.share, number, 0.0).astype(np.int64)

    def pictures(self, rng: np.random.Generator, num_images: IntArray) -> Pictures:
        """Sizes and contents of so many pictures a request; pictures that are the same have one size."""
        offsets = np.concatenate([[0], np.cumsum(num_images)]).astype(np.int64)
        content = np.arange(offsets[-1])
        if self.popularity is not None:
            content = self.popularity.contents(rng.random(int(offsets[-1])))
        weights = np.array([size.weight for size in self.sizes])
        edges = np.cumsum(weights / weights.sum())
        num_contents = self.popularity.num_distinct if self.popularity is not None else len(content)
        drawn = np.searchsorted(edges, rng.random(num_contents), side="right")[content]
        size = np.minimum(drawn, len(self.sizes) - 1)
        width, height = (np.array([getattr(one, side) for one in self.sizes])[size] for side in ("width", "height"))
        return Pictures(offsets, width, height, content)


def with_images(
    table: RequestTable, images: Images, rng: np.random.Generator, for_sizes: np.random.Generator
) -> RequestTable:
    """Prompts grow by their pictures; a later turn of a session sends those of the turns before it again."""
    number = images.num_images(rng, table.num_requests)
    in_sessions = bool((table.session >= 0).any())
    added = number * (images.tokens_per_image or 0)
    if in_sessions:
        added = _so_far(added, first_of_session(table))
    pictures = images.pictures(for_sizes, number) if images.sizes else None
    if pictures is not None and in_sessions:
        pictures = with_earlier_turns(pictures, first_of_session(table))
    prompt = table.num_prompt_tokens + added
    return replace(table, num_prompt_tokens=prompt, num_image_tokens=added, pictures=pictures)


def _so_far(added: IntArray, group: IntArray) -> IntArray:
    """Sums within each group, up to and with each row."""
    order = np.argsort(group, kind="stable")
    sums = np.cumsum(added[order])
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    before = np.repeat(sums[starts] - added[order][starts], np.diff(np.append(starts, len(order))))
    so_far = np.empty_like(added)
    so_far[order] = sums - before
    return so_far
