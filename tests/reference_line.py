"""The waiting line of an engine in its six orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from tests.reference_records import Arrival, QueueOrder, Sequence

SORTED_ORDERS = ("priority", "sjf", "least_slack")
NUM_LOOKED_AT = 128
"""Of longest_prefix: nobody behind these is looked up (SGLang)."""
COUNTER_PER_OUTPUT = 2
"""Of fair_share: an output token counts as much as two of the prompt (arXiv 2401.00588)."""


def order_key(order: QueueOrder, arrival: Arrival) -> float:
    """Smaller goes first; only sorted orders look at it."""
    if order == "sjf":
        return arrival.num_prompt + arrival.num_output
    if order == "least_slack":
        return arrival.deadline_s
    return arrival.priority


class WaitingLine:
    """Sequences in line, and what each client has been served (virtual token counters)."""

    def __init__(self, order: QueueOrder) -> None:
        self.order = order
        self.is_sorted = order in SORTED_ORDERS
        self.line: list[Sequence] = []
        self.is_in_order = True
        """Nobody has been brought forward yet."""
        self.served: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.line)

    def arrive(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        """Last in line, or at its sorted place; a client that was away is not owed for that time."""
        clients = {other.client for other in [*self.line, *running]}
        if clients and sequence.client not in clients:
            least = min(self.served[client] for client in clients)
            self.served[sequence.client] = max(self.served[sequence.client], least)
        self._insert(sequence, len(self.line))

    def count_output(self, client: int, num_tokens: int) -> None:
        self.served[client] += COUNTER_PER_OUTPUT * num_tokens

    def count_prompt(self, client: int, num_tokens: int) -> None:
        self.served[client] += num_tokens

    def put_in_front(self, sequences: list[Sequence]) -> None:
        """Preempted sequences and samples go first, or to their sorted place."""
        for place, sequence in enumerate(sequences):
            self._insert(sequence, place)

    def remove(self, sequence: Sequence) -> None:
        self.line.remove(sequence)

    def choose(self, num_hits: Callable[[Sequence], int]) -> Sequence:
        """Who is to be admitted next; of equals the earliest in line. It comes to the head."""
        if self.order == "fair_share":
            return self.bring_forward(min(self.line, key=lambda sequence: self.served[sequence.client]))
        if self.order == "longest_prefix":
            return self.bring_forward(max(self.line[:NUM_LOOKED_AT], key=num_hits))
        return self.line[0]

    def bring_forward(self, sequence: Sequence) -> Sequence:
        """It becomes the head, whatever the order."""
        self.is_in_order = self.is_in_order and sequence is self.line[0]
        self.line.remove(sequence)
        self.line.insert(0, sequence)
        return sequence

    def _insert(self, sequence: Sequence, place: int) -> None:
        if self.is_sorted:
            later = (place for place, other in enumerate(self.line) if sequence.urgency < other.urgency)
            place = next(later, len(self.line))
        self.line.insert(place, sequence)
