"""Rows of searches: a kept prefix, a candidate, a candidate before the verifier, each a sequence of its own.

The first sequence of a visit is the visit's own row; the others are further rows, behind those of all samples. Texts
are a tree: each row says which row's text its first tokens are of (`row_text_before`), up to the request's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.visited import ancestors
from hermes_sim.sim.sample_rows import Members, joined
from hermes_sim.sim.sequences import heads, sequence_from
from hermes_sim.sim.token_counts import is_one_text
from hermes_sim.sim.tree_draws import Tree, ends
from hermes_sim.state.arrays import EngineArrays

IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Search = tuple[Members, Sequence[Tree], Flags]
"""Requests of a pipeline, its searches, [num_stages, num_members] who passes what."""


@dataclass(slots=True)
class TreeRows:
    """Further rows of all searches, and what their visits' rows say instead of what they said."""

    first: int
    """Number of rows before them."""
    num_candidates: IntArray
    """[num_requests]"""
    num_kept_tokens: IntArray
    """[num_requests] of the path at the end of each search."""
    number: int = 0
    _parents: list[IntArray] = field(default_factory=list)
    _forks: list[Flags] = field(default_factory=list)
    _values: list[tuple[str, IntArray, IntArray]] = field(default_factory=list)
    """(column of the rows, rows, values), the later ones in place of the earlier."""

    @property
    def parent(self) -> IntArray:
        """[number] visit that each further row belongs to."""
        return joined(self._parents)

    @property
    def is_fork(self) -> Flags:
        """[number] whether a row begins with the first token of another's prompt."""
        return np.concatenate([np.zeros(0, bool), *self._forks])

    @property
    def longest_sequence(self) -> int:
        """Prompt and output tokens of the longest one."""
        total = np.zeros(self.first + self.number, np.int64)
        for column in ("row_prompt", "row_output"):
            own = np.zeros(len(total), np.int64)
            for _, rows, values in (one for one in self._values if one[0] == column):
                own[rows] = values
            total += own
        return int(total.max(initial=1))

    def add(self, visits: IntArray, num_sequences: int, is_fork: Flags | None = None) -> IntArray:
        """[num_visits, num_sequences] rows of each visit, its own first; is_fork: [num_sequences] of its sequences."""
        num_others = num_sequences - 1
        new = self.first + self.number + np.arange(len(visits) * num_others).reshape(len(visits), num_others)
        self.number += new.size
        self._parents.append(np.repeat(visits, num_others))
        forks = np.zeros(num_others, bool) if is_fork is None else is_fork[1:]
        self._forks.append(np.tile(forks, len(visits)))
        return np.concatenate((visits[:, None], new), axis=1)

    def put(self, rows: IntArray, **columns: IntArray | int) -> None:
        """Values of some columns, each of the shape of `rows` or one for all."""
        for name, values in columns.items():
            self._values.append((name, rows.ravel(), np.broadcast_to(values, rows.shape).ravel()))

    def branch(self, rows: IntArray) -> None:
        """Sequences of visits that join the line together, [num_visits, num_sequences]."""
        if rows.shape[1] > 1:
            self.put(rows[:, 0], row_num_branches=rows.shape[1], row_first_sample=rows[:, 1])
            self.put(rows[:, 0], row_open_samples=rows.shape[1])

    def fill(self, state: EngineArrays) -> None:
        """Into the arrays, when they have what is known of all visits."""
        rows, parent = slice(self.first, self.first + self.number), self.parent
        state.row_parent[rows] = parent
        for column in (state.row_request, state.row_priority, state.row_client, state.row_adapter):
            column[rows] = column[parent]
        for name, changed, values in self._values:
            getattr(state, name)[changed] = values


def tree_rows(searches: Sequence[Search], num_requests: int, first: int) -> TreeRows:
    """Rows of all searches of all pipelines; `first` rows, visits and samples, come before them."""
    found = TreeRows(first, np.zeros(num_requests, np.int64), np.zeros(num_requests, np.int64))
    for members, trees, passes in searches:
        for tree in trees:
            candidates = _search_rows(found, members, tree, passes)
            _texts_behind(found, members, tree, candidates)
    return found


def _search_rows(found: TreeRows, members: Members, tree: Tree, passes: Flags) -> IntArray:
    """[num_members, candidates of all rounds] rows of the candidates; -1 in rounds that a request does not have."""
    search, number = tree.search, tree.search.num_candidates
    shape = (len(members.requests), len(tree.rounds) * number)
    of_all, common, before = (np.full(shape, -1, np.int64) for _ in range(3))
    for place, one in enumerate(tree.rounds):
        who = np.flatnonzero(passes[tree.places[place, 0]])
        read, write, score = (members.first_row[who] + int(stage) for stage in tree.places[place])
        width = number // one.num_beams
        beams = found.add(read, one.num_beams)
        candidates = found.add(write, number, np.arange(number) % width != 0)
        scored = found.add(score, number)
        prompt, output = one.of_candidates(one.prompt)[who], one.output[who]
        found.put(beams, row_prompt=one.prompt[who], row_output=1, row_continues_as=candidates[:, ::width])
        if place > 0:
            came_from = (who[:, None], one.parent[who])
            texts = {"row_text": of_all, "row_common": common, "row_text_before": before}
            found.put(beams, **{name: values[came_from] for name, values in texts.items()})
        behind_beams = np.repeat(beams, width, axis=1)
        found.put(candidates, row_prompt=prompt, row_output=output)
        found.put(candidates, row_text=candidates, row_common=prompt, row_text_before=behind_beams)
        found.put(candidates[:, ::width], row_num_samples=width)
        if width > 1:
            found.put(candidates[:, ::width], row_first_sample=candidates[:, 1::width])
        elif number > 1:
            found.put(write, row_first_sample=candidates[:, 1])
        found.put(write, row_open_samples=number)
        whole = prompt + output
        reads = np.minimum(whole + search.num_verifier_tokens, members.limit - search.num_verdict_tokens)
        found.put(scored, row_prompt=reads, row_output=search.num_verdict_tokens)
        found.put(scored, row_text=scored, row_common=np.minimum(whole, reads), row_text_before=candidates)
        found.branch(beams)
        found.branch(scored)
        columns = np.arange(place * number, (place + 1) * number)
        for values, own in ((of_all, candidates), (common, prompt), (before, behind_beams)):
            values[who[:, None], columns] = own
        found.num_candidates[members.requests[who]] += number
    found.num_kept_tokens[members.requests] += np.where(tree.best >= 0, tree.gain.sum(axis=0), 0)
    return of_all


def _texts_behind(found: TreeRows, members: Members, tree: Tree, candidates: IntArray) -> None:
    """Passes behind a search go on from its best candidate, in one text that is named by the row which began it."""
    stages, start = members.stages, int(tree.places[0, 0])
    of_all = ancestors(stages)
    if not is_one_text(stages, start, of_all[start]):
        return
    who = np.flatnonzero(tree.best >= 0)
    best = (who, tree.best[who])
    end = ends(tree.rounds)[best]
    own = set(tree.places.ravel().tolist())
    for head in heads(stages):
        if head in own or int(tree.places[0, 2]) not in of_all[head] or not is_one_text(stages, head, of_all[head]):
            continue
        for place in sequence_from(stages, head):
            rows = members.first_row[who] + place
            found.put(rows, row_text=members.first_row[who] + start, row_common=end)
            found.put(rows, row_text_before=candidates[best])
