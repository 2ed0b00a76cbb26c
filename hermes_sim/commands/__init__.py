"""Commands of `hermes-sim` that have options of their own, one file each."""

from __future__ import annotations
