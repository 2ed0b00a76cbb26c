"""Pictures and sound that requests bring: sizes and contents, not what an encoder makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of all requests, one request after the other."""

    offsets: IntArray
    """[num_requests + 1] into the other columns."""
    width: IntArray
    """[num_pictures] pixels."""
    height: IntArray
    content: IntArray
    """Pictures with the same number are the same picture."""

    @property
    def request(self) -> IntArray:
        """[num_pictures] the row that brings each."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def of(self, requests: IntArray) -> Pictures:
        """Those of these rows, in this order; a row may be there more than once, or a row's pictures joined."""
        numbers = np.diff(self.offsets)[requests]
        offsets = np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[requests] - offsets[:-1], numbers)
        return Pictures(offsets, self.width[places], self.height[places], self.content[places])


def with_earlier_turns(pictures: Pictures, group: IntArray) -> Pictures:
    """Every row brings those of the rows before it in its group again, in order, and then its own."""
    sent: list[int] = []
    numbers = np.zeros(len(group), np.int64)
    so_far: dict[int, list[int]] = {}
    for row, one in enumerate(group.tolist()):
        before = so_far.setdefault(one, [])
        before.append(row)
        sent += before
        numbers[row] = len(before)
    joined = pictures.of(np.array(sent, np.int64))
    return Pictures(
        joined.offsets[np.concatenate([[0], np.cumsum(numbers)])], joined.width, joined.height, joined.content
    )
