"""What became of a request."""

from __future__ import annotations

FINISHED = 0
REJECTED = 1
"""No engine could ever hold it."""
UNFINISHED = 2
FAILED = 3
"""Lost to failures too often."""

NAMES = ("finished", "rejected", "unfinished", "failed")
