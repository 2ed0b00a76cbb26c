"""Searches of requests, drawn before the run: lengths of all candidates, which are kept, the path at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.visited import Visited
from hermes_sim.stages.count import Count
from hermes_sim.stages.tree_search import TreeSearch
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NEVER = -1.0
"""Score of a candidate that cannot be kept; the others' lie in [0, 1)."""


@dataclass(frozen=True, slots=True)
class TreeRound:
    """One round of a search. Candidate k is written from beam k // (candidates / beams); a beam's longest comes first,
    and the longest of all is candidate 0."""

    prompt: IntArray
    """[num_members, num_beams] tokens of each kept prefix with what is before the search."""
    parent: IntArray
    """[num_members, num_beams] candidate that a beam goes on from, numbered over all rounds; -1: what is before."""
    step: IntArray
    """[num_members, num_candidates] tokens that stay if a candidate is kept."""
    output: IntArray
    """[num_members, num_candidates] tokens written, lookahead included."""

    @property
    def num_beams(self) -> int:
        return int(self.prompt.shape[1])

    def of_candidates(self, of_beams: IntArray) -> IntArray:
        """[num_members, num_candidates] what is known of each candidate's beam."""
        return np.repeat(of_beams, self.step.shape[1] // self.num_beams, axis=1)


@dataclass(frozen=True, slots=True)
class Tree:
    """One search of a pipeline, for all requests of it."""

    search: TreeSearch
    places: IntArray
    """[num_rounds, 3] of prefill, decode and verifier in each round."""
    rounds: tuple[TreeRound, ...]
    best: IntArray
    """[num_members] candidate at the end of the path, numbered over all rounds; -1: the request has no search."""
    gain: IntArray
    """[num_rounds, num_members] tokens that the path gets in each round."""


def search_places(stages: Sequence[Visited]) -> list[IntArray]:
    """[num_rounds, 3] places of every search of a pipeline, in order."""
    found: dict[int, list[int]] = {}
    for place, visited in enumerate(stages):
        if isinstance(visited.repeat, TreeSearch):
            found.setdefault(id(visited.repeat), []).append(place)
    return [np.array(places, np.int64).reshape(-1, 3) for places in found.values()]


def draw_tree(
    pipeline: str,
    stages: Sequence[Visited],
    places: IntArray,
    context: IntArray,
    requests: RequestTable,
    members: IntArray,
    passes: npt.NDArray[np.bool_],
    limit: int,
    seed: int,
) -> Tree:
    """context: [num_members] tokens before the search. A request's draws do not depend on the others', but for whole
    answers, whose lengths are those of other requests."""
    search = stages[places[0, 0]].repeat
    assert isinstance(search, TreeSearch)
    number = search.num_candidates
    rounds: list[TreeRound] = []
    scores: list[FloatArray] = []
    prompt = np.minimum(np.maximum(context, 1), limit - 1)[:, None]
    parent = np.full(prompt.shape, -1, np.int64)
    for place in range(len(places)):
        uniforms = stream(seed, f"tree {pipeline}.{search.name}", place).random((requests.num_requests, 3, number))
        drawn = uniforms[members]
        own_output = requests.num_output_tokens[members]
        step = lengths(search.num_output_tokens, drawn[:, 0], own_output)
        beyond = np.zeros(step.shape, np.int64)
        if search.num_lookahead_tokens is not None:
            beyond = lengths(search.num_lookahead_tokens, drawn[:, 1], own_output, least=0)
        rounds.append(longest_first(prompt, parent, step, beyond, limit))
        scores.append(drawn[:, 2])
        if place + 1 < len(places):
            parent = select(search, scores)
            prompt = np.minimum(np.take_along_axis(ends(rounds), parent, axis=1), limit - 1)
    num_rounds = passes[places[:, 0]].sum(axis=0)
    best = best_of(scores, num_rounds)
    return Tree(search, places, tuple(rounds), best, path_gains(rounds, best))


def lengths(law: Count | None, uniforms: FloatArray, own_output: IntArray, least: int = 1) -> IntArray:
    """[num_members, num_candidates]; without a law whole answers: the request's own, others' for the others."""
    if law is not None:
        return np.maximum(law.quantiles(uniforms, np.broadcast_to(own_output[:, None], uniforms.shape)), least)
    found = own_output[(uniforms * len(own_output)).astype(np.int64)]
    found[:, 0] = own_output
    return np.maximum(found, least)


def longest_first(prompt: IntArray, parent: IntArray, step: IntArray, beyond: IntArray, limit: int) -> TreeRound:
    """Cut at the model's limit and put in order: candidates are alike, so that their numbers say nothing."""
    num_members, num_beams = prompt.shape
    shape = (num_members, num_beams, -1)
    room = (limit - prompt)[:, :, None]
    kept = np.minimum(step.reshape(shape), room)
    output = np.minimum(kept + beyond.reshape(shape), room)
    order = np.argsort(-output, axis=2, kind="stable")
    kept, output = np.take_along_axis(kept, order, 2), np.take_along_axis(output, order, 2)
    beams = np.tile(np.arange(num_beams), (num_members, 1))
    first = output[:, :, 0].argmax(axis=1) if num_members else np.zeros(0, np.int64)
    every = np.arange(num_members)
    beams[every, first] = 0
    beams[every, 0] = first
    kept, output = (np.take_along_axis(one, beams[:, :, None], 1).reshape(num_members, -1) for one in (kept, output))
    prompt, parent = (np.take_along_axis(one, beams, 1) for one in (prompt, parent))
    return TreeRound(prompt, parent, kept, output)


def select(search: TreeSearch, scores: list[FloatArray]) -> IntArray:
    """[num_members, num_beams] candidates that the next round goes on from, numbered over all rounds."""
    num_members, number = scores[-1].shape
    first = (len(scores) - 1) * number
    if search.selection == "each_beam":
        own = scores[-1].reshape(num_members, search.num_beams, search.width).argmax(axis=2)
        return np.asarray(first + np.arange(search.num_beams) * search.width + own, np.int64)
    if search.selection == "beam":
        return np.asarray(first + highest(scores[-1], search.num_beams), np.int64)
    chosen = highest(np.concatenate(scores, axis=1), search.num_beams)
    for place, own in enumerate(scores):  # none goes on from it again
        inside = (chosen >= place * number) & (chosen < (place + 1) * number)
        rows, columns = np.nonzero(inside)
        own[rows, chosen[rows, columns] - place * number] = NEVER
    return chosen


def highest(scores: FloatArray, number: int) -> IntArray:
    """[num_members, number] places of the highest scores, the best first."""
    return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :number], np.int64)


def ends(rounds: Sequence[TreeRound]) -> IntArray:
    """[num_members, candidates of all rounds] tokens of each candidate's text with all that is before it."""
    return np.concatenate([one.of_candidates(one.prompt) + one.step for one in rounds], axis=1)


def best_of(scores: Sequence[FloatArray], num_rounds: IntArray) -> IntArray:
    """[num_members] the best candidate of each request's last round, numbered over all rounds."""
    best = np.full(len(num_rounds), -1, np.int64)
    for place, own in enumerate(scores):
        last = num_rounds == place + 1
        best[last] = place * own.shape[1] + own[last].argmax(axis=1)
    return best


def path_gains(rounds: Sequence[TreeRound], best: IntArray) -> IntArray:
    """[num_rounds, num_members] steps of the candidates that lead to the best one."""
    gain = np.zeros((len(rounds), len(best)), np.int64)
    number = rounds[0].step.shape[1]
    here = best.copy()
    for place in reversed(range(len(rounds))):
        one = rounds[place]
        on_path = np.flatnonzero(here >= place * number)
        candidate = here[on_path] - place * number
        gain[place, on_path] = one.step[on_path, candidate]
        here[on_path] = one.parent[on_path, candidate // (number // one.num_beams)]
    return gain
