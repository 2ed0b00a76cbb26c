"""Reports of how far a run has come, about ten a second."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[float, int, int], None]
"""(simulated seconds, requests done, requests in all)"""

PROGRESS_INTERVAL_S = 0.1
"""Wall time between two reports; only how often, never what."""


class ProgressReport:
    """Calls a function of the user now and then."""

    def __init__(self, progress: Progress | None, now_s: Callable[[], float], counts: Callable[[], tuple[int, int]]):
        """`counts()`: requests done and in all; asked for only where a report is due."""
        self._progress = progress
        self._now_s = now_s
        self._counts = counts
        self._reported_at = time.monotonic()

    def report(self, *, force: bool = False) -> None:
        """Call the user's function if the last call was long ago."""
        if self._progress is None:
            return
        now = time.monotonic()
        if force or now - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._progress(self._now_s(), *self._counts())
