"""Pictures in prompts, as the language model sees them: tokens behind the text.

A vision encoder turns a picture into a fixed number of tokens (576 in LLaVA-1.5, arXiv 2310.03744: 24 x 24 patches).
They are computed and cached like other prompt tokens; the encoder's own work is not part of a step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, PositiveInt
from hermes_sim.workload.requests import IntArray, RequestTable, first_of_session


class Images(Description):
    """Pictures that requests add to their prompts, on top of what `lengths` says. No two pictures are the same."""

    share: Fraction = 1.0
    """Of the requests that bring pictures."""
    per_request: Literal["fixed", "geometric"] = "fixed"
    mean_num_images: Annotated[float, Field(ge=1.0)] = 1.0
    """In a request that brings any. With `fixed` a whole number."""
    tokens_per_image: PositiveInt

    @model_validator(mode="after")
    def _check_number(self) -> Self:
        if self.per_request == "fixed" and not self.mean_num_images.is_integer():
            raise ValueError(f"per_request: fixed needs a whole mean_num_images, not {self.mean_num_images:g}")
        return self

    def num_images(self, rng: np.random.Generator, num_requests: int) -> IntArray:
        """[num_requests], two draws a request: by inversion, so that a request's own do not depend on the others."""
        for_share, for_number = rng.random((num_requests, 2)).T
        number = np.full(num_requests, self.mean_num_images)
        if self.per_request == "geometric" and self.mean_num_images > 1.0:
            number = 1.0 + np.floor(np.log1p(-for_number) / np.log1p(-1.0 / self.mean_num_images))
        return np.where(for_share < self.share, number, 0.0).astype(np.int64)


def with_images(table: RequestTable, images: Images, rng: np.random.Generator) -> RequestTable:
    """Prompts grow by their pictures; a later turn of a session sends those of the turns before it again."""
    added = images.num_images(rng, table.num_requests) * images.tokens_per_image
    if (table.session >= 0).any():
        added = _so_far(added, first_of_session(table))
    return replace(table, num_prompt_tokens=table.num_prompt_tokens + added, num_image_tokens=added)


def _so_far(added: IntArray, group: IntArray) -> IntArray:
    """Sums within each group, up to and with each row."""
    order = np.argsort(group, kind="stable")
    sums = np.cumsum(added[order])
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    before = np.repeat(sums[starts] - added[order][starts], np.diff(np.append(starts, len(order))))
    so_far = np.empty_like(added)
    so_far[order] = sums - before
    return so_far
