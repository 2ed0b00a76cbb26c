"""Which stages of a pipeline share one sequence: a prefill, its decode, a decode that goes on where that one ends."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_sim.scenario.visited import Visited


def goes_on_as(stages: Sequence[Visited], place: int) -> int | None:
    """The decode that takes over the sequence of this prefill or decode when it has ended; None if none does."""
    here = stages[place]
    if here.kind not in {"prefill", "decode"}:
        return None
    for number, later in enumerate(stages):
        if later.kind != "decode" or later.after != (place,):
            continue
        if later.stage.probability == 1.0 and later.when in ((), here.when):
            return number
    return None


def sequence_from(stages: Sequence[Visited], place: int) -> list[int]:
    """This stage and those that take its sequence over, in turn."""
    found = [place]
    following = goes_on_as(stages, place)
    while following is not None:
        found.append(following)
        following = goes_on_as(stages, following)
    return found


def heads(stages: Sequence[Visited]) -> list[int]:
    """Stages that begin a sequence: prefills, and decodes that take over none."""
    taken = {goes_on_as(stages, place) for place in range(len(stages))}
    return [place for place, one in enumerate(stages) if one.kind in {"prefill", "decode"} and place not in taken]
