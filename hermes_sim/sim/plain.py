"""Arrays read and written number by number from Python."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def plain(array: npt.NDArray[Any]) -> Any:
    """A view of the same memory whose elements are plain numbers, in a third of the time that an array takes."""
    return memoryview(array)  # type: ignore[arg-type,unused-ignore]
