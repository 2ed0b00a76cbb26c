"""How a picture becomes sequences of patches: one size for all, tiles, or its own size. Whole numbers only."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from hermes_sim.core.schema import Description, PositiveInt

IntArray = npt.NDArray[np.int64]


class Patches(NamedTuple):
    """What a vision tower sees of each picture. [num_pictures] each."""

    num_sequences: IntArray
    """Tiles, or the picture as a whole: patches of one attend to each other."""
    patches_per_sequence: IntArray


class Resolution(Description):
    """A rule from width and height to patches."""

    @abstractmethod
    def patches(self, width: IntArray, height: IntArray, patch_size: int) -> Patches:
        """Of pictures of these pixels."""


class FixedResolution(Resolution):
    """Every picture is scaled to one square (CLIP, SigLIP, LLaVA-1.5, Gemma 3)."""

    kind: Literal["fixed"] = "fixed"
    size: PositiveInt
    """Pixels along a side."""

    def patches(self, width: IntArray, height: IntArray, patch_size: int) -> Patches:
        return Patches(np.ones_like(width), np.full_like(width, (self.size // patch_size) ** 2))


class TiledResolution(Resolution):
    """Scaled to a grid of square tiles whose shape is nearest to the picture's, and a thumbnail beside several.

    Of grids of the same shape the largest that the picture fills at least half is taken. Source: InternVL's
    `dynamic_preprocess` (arXiv 2404.16821, section 3.2).
    """

    kind: Literal["tiles"] = "tiles"
    size: PositiveInt
    """Pixels along a side of a tile."""
    max_tiles: PositiveInt
    """In the grid."""
    thumbnail: bool = True
    """The whole picture as one more tile where there are several."""

    def patches(self, width: IntArray, height: IntArray, patch_size: int) -> Patches:
        tiles = np.array([self._num_tiles(int(w), int(h)) for w, h in zip(width, height, strict=True)], np.int64)
        return Patches(tiles, np.full_like(tiles, (self.size // patch_size) ** 2))

    def _num_tiles(self, width: int, height: int) -> int:
        """Of one picture."""
        grids = [(a, b) for a in range(1, self.max_tiles + 1) for b in range(1, self.max_tiles // a + 1)]
        best, nearest = (1, 1), float("inf")
        for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            distance = abs(width / height - columns / rows)
            fills_half = width * height > 0.5 * self.size**2 * columns * rows
            if distance < nearest or (distance == nearest and fills_half):
                best, nearest = (columns, rows), distance
        number = best[0] * best[1]
        return number + int(self.thumbnail and number > 1)


class OwnResolution(Resolution):
    """Sides rounded to whole patches, scaled only where the picture is smaller or larger than the limits.

    Source: Qwen2-VL (arXiv 2409.12191, section 2.1), `smart_resize` of its processor.
    """

    kind: Literal["own"] = "own"
    multiple: PositiveInt
    """Of pixels that a side is rounded to: a patch times the patches that are merged along a side."""
    min_pixels: PositiveInt
    max_pixels: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> OwnResolution:
        if not self.multiple**2 <= self.min_pixels <= self.max_pixels:
            raise ValueError("needs multiple^2 <= min_pixels <= max_pixels")
        return self

    def patches(self, width: IntArray, height: IntArray, patch_size: int) -> Patches:
        rounded = self._rounded(width) * self._rounded(height)
        shrink = np.sqrt(width * height / self.max_pixels)
        stretch = np.sqrt(self.min_pixels / (width * height))
        smaller = np.maximum(width / shrink // self.multiple, 1.0) * np.maximum(height / shrink // self.multiple, 1.0)
        larger = np.ceil(width * stretch / self.multiple) * np.ceil(height * stretch / self.multiple)
        pixels = rounded * self.multiple**2
        squares = np.where(pixels > self.max_pixels, smaller, np.where(pixels < self.min_pixels, larger, rounded))
        return Patches(np.ones_like(width), np.asarray(squares, np.int64) * (self.multiple // patch_size) ** 2)

    def _rounded(self, side: IntArray) -> npt.NDArray[np.float64]:
        """Multiples along a side, at least one."""
        return np.maximum(np.rint(side / self.multiple), 1.0)


RESOLUTIONS: dict[str, type[Resolution]] = {
    "fixed": FixedResolution,
    "own": OwnResolution,
    "tiles": TiledResolution,
}
