"""Order of events at the same time; ties inside a rank go by kind, engine, row, never by insertion."""

from __future__ import annotations

FAILURE = 0
TRANSFER = 1
STEP_DONE = 2
HAND_OFF = 3
"""A visit that ended in a step is handed on, after all steps that end at this time."""
TIMER = 4
ARRIVAL = 5
CONTROL = 6
SCHEDULING = 9
"""Steps begin last, so that they see everything that happens at their start."""
