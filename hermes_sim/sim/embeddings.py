"""What encoders make of pictures and sound: tokens of the prompt, and vectors on their way to the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.network import Route
from hermes_sim.scenario.visited import Visited
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.passes import passing
from hermes_sim.sim.ranks import TRANSFER
from hermes_sim.stages.encode import Encode
from hermes_sim.workload.requests import RequestTable

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator
    from hermes_sim.sim.plans import StagePlan

IntArray = npt.NDArray[np.int64]


def with_encoded_tokens(
    requests: RequestTable, walks: Mapping[str, Sequence[Visited]], request_pipeline: IntArray, seed: int
) -> RequestTable:
    """Prompts with what the encoders that a request passes add to them; those with a stated number of tokens stay."""
    added = np.zeros(requests.num_requests, np.int64)
    stated = requests.num_image_tokens is not None and bool(requests.num_image_tokens.any())
    for number, (name, stages) in enumerate(walks.items()):
        if not any(isinstance(visited.stage, Encode) for visited in stages):
            continue
        members = request_pipeline == number
        passes = passing(name, stages, requests, seed, idle=True)
        for place, visited in enumerate(stages):
            stage = visited.stage
            if isinstance(stage, Encode) and not (stated and stage.reads == "pictures"):
                added += np.where(members & passes[place], stage.prompt_tokens(requests), 0)
    if not added.any():
        return requests
    before = 0 if requests.num_image_tokens is None else requests.num_image_tokens
    return replace(requests, num_prompt_tokens=requests.num_prompt_tokens + added, num_image_tokens=before + added)


def encoders_before(stages: Sequence[Visited], place: int, before: Sequence[frozenset[int]]) -> tuple[int, ...]:
    """Places of the encoders whose vectors a prefill is the first to read; none for all other stages."""
    if stages[place].kind != "prefill":
        return ()
    earlier = {n for one in before[place] if stages[one].kind == "prefill" for n in before[one]}
    return tuple(sorted(n for n in before[place] - earlier if isinstance(stages[n].stage, Encode)))


class Embeddings:
    """Vectors set out when the engine of their prefill has been chosen; the prompt joins the line with the last."""

    def __init__(self, coordinator: Coordinator, flows: Flows) -> None:
        self._coordinator = coordinator
        self._flows = flows
        lowered = coordinator.lowered
        self._row_bytes = np.zeros(lowered.num_visits)
        """[num_visits] that a visit to an encoder sends."""
        for number, plan in enumerate(lowered.pipelines):
            members = np.flatnonzero(lowered.request_pipeline == number)
            for place, stage in enumerate(plan.stages):
                if isinstance(stage.stage, Encode):
                    sent = stage.stage.sent_bytes(lowered.requests, lowered.scenario.seed)
                    self._row_bytes[lowered.first_row[members] + place] = sent[members]

    def are_first(self, plan: StagePlan, place: int, engine: int, row: int, time_s: float) -> bool:
        """Send what the encoders before a prefill have made, with the last of which it joins the line of its engine;
        False: nothing has to go anywhere.
        """
        coordinator = self._coordinator
        transfers = self._transfers(plan, place, engine, row)
        if not transfers:
            return False
        num_open = len(transfers)

        def arrived(at_s: float) -> None:
            nonlocal num_open
            num_open -= 1
            if num_open == 0:
                coordinator.row_transfer_s[row] = at_s - time_s
                coordinator.dispatch.arrives(row)  # the push counts it again
                self._join(plan, place, engine, row, at_s)

        coordinator.dispatch.expect(engine, row)
        guarded = coordinator.attempts.guard(row, arrived)
        for route, num_bytes in transfers:
            coordinator.row_link_energy_j[row] += self._flows.energy_j(route, num_bytes)
            self._flows.start(route, num_bytes, guarded)
        return True

    def _transfers(self, plan: StagePlan, place: int, engine: int, row: int) -> list[tuple[Route, float]]:
        """Route and bytes from every encoder that the request has passed and that is on other devices."""
        lowered, found = self._coordinator.lowered, []
        target = lowered.replicas[engine].endpoints
        for encoder in plan.encoded_by:
            encoder_row = row - place + encoder
            encoder_engine = int(self._coordinator.state.row_engine[encoder_row])
            if lowered.skipped[encoder_row] or encoder_engine < 0:
                continue
            source = lowered.replicas[encoder_engine].endpoints
            if not set(source) & set(target):
                route = lowered.network.group_route(source, target)
                found.append((route, float(self._row_bytes[encoder_row])))
        return found

    def _join(self, plan: StagePlan, place: int, engine: int, row: int, time_s: float) -> None:
        """Into the line; where the engine has gone meanwhile, to another, and the vectors set out again."""
        coordinator = self._coordinator
        if coordinator.fleet is not None and len(coordinator.fleet.usable(np.array([engine]))) == 0:
            coordinator.visits.start(int(coordinator.state.row_request[row]), place, time_s, TRANSFER)
        else:
            coordinator.visits.push(engine, plan.queues[engine], row, time_s, TRANSFER)
