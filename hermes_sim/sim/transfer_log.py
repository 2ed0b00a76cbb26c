"""When links carried what: one entry a transfer, for the table of links over time."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.network import Route

FloatArray = npt.NDArray[np.float64]


class TransferLog:
    """Transfers in the order in which they ended: route, begin, end, bytes."""

    def __init__(self) -> None:
        self._routes: dict[tuple[tuple[int, ...], tuple[float, ...]], int] = {}
        """(links, shares) -> its number."""
        self._route = array("q")
        self._start_s = array("d")
        self._end_s = array("d")
        self._bytes = array("d")

    def add(self, route: Route, start_s: float, end_s: float, num_bytes: float) -> None:
        """Bytes that have crossed a route between two moments."""
        if route.link_ids and num_bytes > 0.0:
            ways = self._routes
            self._route.append(ways.setdefault((route.link_ids, route.share_frac), len(ways)))
            self._start_s.append(start_s)
            self._end_s.append(end_s)
            self._bytes.append(num_bytes)

    def bytes_over_time(self, num_links: int, edges_s: FloatArray) -> FloatArray:
        """[num_links, num_intervals] bytes that each link carried in each interval.

        A transfer's are taken as evenly spread from its begin to its end.
        """
        carried = np.zeros((num_links, max(len(edges_s) - 1, 0)))
        if len(edges_s) < 2:
            return carried
        numbers = np.array(self._route, np.int64)
        start_s, end_s, num_bytes = (np.array(column) for column in (self._start_s, self._end_s, self._bytes))
        for (link_ids, shares), number in self._routes.items():
            own = numbers == number
            of_route = _per_interval(edges_s, start_s[own], end_s[own], num_bytes[own])
            for link_id, share in zip(link_ids, shares, strict=True):
                carried[link_id] += of_route * share
        return carried


def _per_interval(edges_s: FloatArray, start_s: FloatArray, end_s: FloatArray, num_bytes: FloatArray) -> FloatArray:
    """[num_intervals] bytes: of transfers inside one interval all, of longer ones by the time in each."""
    first = np.clip(np.searchsorted(edges_s, start_s, side="right") - 1, 0, len(edges_s) - 2)
    last = np.clip(np.searchsorted(edges_s, end_s, side="left") - 1, 0, len(edges_s) - 2)
    parts, slopes = np.zeros(len(edges_s) - 1), np.zeros(len(edges_s))
    inside = last <= first
    np.add.at(parts, first[inside], num_bytes[inside])
    first, last = first[~inside], last[~inside]
    start_s, end_s, num_bytes = start_s[~inside], end_s[~inside], num_bytes[~inside]
    rate = num_bytes / (end_s - start_s)
    np.add.at(parts, first, rate * (edges_s[first + 1] - start_s))
    np.add.at(parts, last, rate * (end_s - edges_s[last]))
    np.add.at(slopes, first + 1, rate)  # full intervals between, whose rates add up
    np.add.at(slopes, last, -rate)
    lengths_s: FloatArray = np.diff(edges_s)
    return parts + np.maximum(np.cumsum(slopes)[:-1], 0.0) * lengths_s
