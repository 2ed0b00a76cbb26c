"""Rows of a serving table that ran with multi-token prediction without saying so.

One configuration measured twice repeats within a few percent; where its TPOTs lie further apart than any change of
version makes them, the fast ones drafted tokens ahead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

from hermes_sim.replay.silicon_table import ServingRun

APART: Final = 1.2
"""Ratio of two TPOTs of one configuration from which drafts are the reason."""


def drafting_rows(runs: Sequence[ServingRun]) -> frozenset[int]:
    """Places of rows that draft.

    A row is one of them if the same configuration ran at least 1.2 times slower in another session; and so are the
    rows of its session that nobody repeated, where most of those that somebody did repeat are.
    """
    by_configuration: dict[Hashable, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        by_configuration[_configuration(run)].append(number)
    fast: set[int] = set()
    decided: set[int] = set()
    for rows in by_configuration.values():
        slowest_s = max(runs[row].tpot_s for row in rows)
        if slowest_s < APART * min(runs[row].tpot_s for row in rows):
            continue
        decided.update(rows)
        fast.update(row for row in rows if slowest_s >= APART * runs[row].tpot_s)
    by_session: dict[Hashable, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        by_session[_session(run)].append(number)
    for rows in by_session.values():
        known = [row for row in rows if row in decided]
        if known and 2 * sum(row in fast for row in known) > len(known):
            fast.update(row for row in rows if row not in decided)
    return frozenset(fast)


def _setup(run: ServingRun) -> tuple[Hashable, ...]:
    """What a server is started with. DeepSeek-V3 and R1 are one architecture, so models go by their layouts here."""
    model = run.model.casefold().rsplit("/", 1)[-1]
    family = "deepseek-v3" if model.startswith(("deepseek-r1", "deepseek-v3")) else model
    return family, run.system, run.backend, run.precision, run.engines


def _configuration(run: ServingRun) -> Hashable:
    return (*_setup(run), run.isl, run.osl, run.concurrency)


def _session(run: ServingRun) -> Hashable:
    return (*_setup(run), run.series)
