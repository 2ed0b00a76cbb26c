"""What became of a request, and why."""

from __future__ import annotations

FINISHED = 0
REJECTED = 1
UNFINISHED = 2
FAILED = 3
"""Lost to failures too often."""
LEFT = 4
"""Its client would not wait any longer."""

NAMES = ("finished", "rejected", "unfinished", "failed", "left")

NO_REASON = 0
TOO_LONG = 1
"""No engine could ever hold it."""
LOST = 2
RATE_LIMIT = 3
QUEUE_FULL = 4
SHED = 5
"""Turned out to make room for a request of a higher class."""
TOO_LATE = 6
"""Its first token would have come after its deadline."""
NO_FIRST_TOKEN = 7
NO_END = 8

AT_THE_DOOR = frozenset({RATE_LIMIT, QUEUE_FULL, TOO_LATE})
"""Of requests that were never taken in."""

REASONS = (
    "", "too_long", "lost", "rate_limit", "queue_full", "shed", "too_late", "no_first_token", "no_end",
)  # fmt: skip
