"""Slots for low-rank adapters of the oracle: who may join whom, and whose slot is taken (docs/modelling.md)."""

from __future__ import annotations

from collections.abc import Iterable

from tests.reference_records import Sequence

NO_ADAPTER = 0


class AdapterSlots:
    """The adapters that are loaded. With no slots nobody needs one."""

    def __init__(self, num_slots: int) -> None:
        self.slots = [NO_ADAPTER] * num_slots
        self.used_s: dict[int, float] = {}
        """When a sequence with the adapter last stopped running."""
        self.num_loads = 0
        self.num_hits = 0

    def may_join(self, sequence: Sequence, running: Iterable[Sequence]) -> bool:
        """Sequences of at most as many adapters as there are slots run together."""
        present = _adapters(running)
        return not self._needs_slot(sequence) or sequence.adapter in present or len(present) < len(self.slots)

    def join(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        """Its adapter is loaded if it is in no slot: into an empty one, else for that which was used longest ago."""
        if not self._needs_slot(sequence):
            return
        if sequence.adapter in self.slots:
            self.num_hits += 1
            return
        self.num_loads += 1
        present = _adapters(running)
        free = [place for place, adapter in enumerate(self.slots) if adapter == NO_ADAPTER]
        idle = [place for place, adapter in enumerate(self.slots) if adapter not in present]
        chosen = free[0] if free else min(idle, key=lambda place: self.used_s.get(self.slots[place], 0.0))
        self.slots[chosen] = sequence.adapter

    def leave(self, sequence: Sequence, time_s: float) -> None:
        """It stops running."""
        self.used_s[sequence.adapter] = time_s

    def _needs_slot(self, sequence: Sequence) -> bool:
        return bool(self.slots) and sequence.adapter != NO_ADAPTER


def _adapters(sequences: Iterable[Sequence]) -> set[int]:
    return {sequence.adapter for sequence in sequences} - {NO_ADAPTER}
