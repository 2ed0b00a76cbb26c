"""Which attempt at a visit is under way: what an earlier one has left on the clock must not go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Attempts:
    """Counts how often each visit was begun anew or given up; only visits that ever were take memory."""

    def __init__(self) -> None:
        self._number: dict[int, int] = {}

    def end(self, rows: Iterable[int]) -> None:
        """Whatever is on its way for these visits is void from now on."""
        for row in rows:
            self._number[row] = self._number.get(row, 0) + 1

    def guard(self, row: int, go_on: Callable[[float], None]) -> Callable[[float], None]:
        """`go_on(time_s)`, unless this attempt at the visit has ended by then."""
        number = self._number.get(row, 0)

        def if_current(time_s: float) -> None:
            if self._number.get(row, 0) == number:
                go_on(time_s)

        return if_current
