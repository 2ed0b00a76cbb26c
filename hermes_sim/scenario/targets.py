"""What an incident befalls: the names of nodes, devices and links in a cluster file, alone or all of a kind."""

from __future__ import annotations

import re
from typing import NamedTuple

OUTSIDE = "network"
"""The end of a link outside all nodes."""
PART = re.compile(r"([A-Za-z][\w-]*)(?:\[(\d+)\])?")


class Part(NamedTuple):
    """One step of a name: `gpu` (all of them), or `gpu[3]`."""

    name: str
    number: int | None

    def covers(self, name: str, index: int) -> bool:
        """Whether it means this one."""
        return self.name == name and self.number in (None, index)


def parts_of(text: str) -> tuple[Part, ...]:
    """`dgx[0].gpu` -> its steps. Raises ValueError for anything else."""
    parts = []
    for word in text.split("."):
        match = PART.fullmatch(word.strip())
        if match is None:
            raise ValueError(f"{text!r} is no place such as 'dgx', 'dgx[0]' or 'dgx[0].gpu[3]'")
        parts.append(Part(match[1], None if match[2] is None else int(match[2])))
    return tuple(parts)


def cable_of(link_name: str) -> frozenset[str]:
    """The two ends of a link, whatever its direction: `dgx[0].gpu[3]->nvswitch` joins {dgx[0].gpu[3], dgx[0].nvswitch}.

    The second end stands in the node of the first, unless it says where it stands or is the network itself.
    """
    first, _, second = link_name.partition("->")
    if first == OUTSIDE or "." in second or second == OUTSIDE or "." not in first:
        return frozenset((first, second))
    return frozenset((first, f"{first.partition('.')[0]}.{second}"))


def means_cable(text: str, cable: frozenset[str]) -> bool:
    """Whether a text names this cable: by both of its ends, or by one of them; without indices all such."""
    patterns = [_pattern(end) for end in (cable_of(text) if "->" in text else (text,))]
    ends = sorted(cable)
    if len(patterns) == 1:
        return any(patterns[0].fullmatch(end) for end in ends)
    return any(
        all(pattern.fullmatch(end) for pattern, end in zip(patterns, order, strict=True))
        for order in (ends, ends[::-1])
        if len(order) == len(patterns)
    )


def _pattern(end: str) -> re.Pattern[str]:
    """A name whose steps may lack an index."""
    steps = [re.escape(step) if "[" in step else rf"{re.escape(step)}(\[\d+\])?" for step in end.split(".")]
    return re.compile(r"\.".join(steps))
