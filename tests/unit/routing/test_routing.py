"""Every router chooses a candidate; each one its own way."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.routing import RoutingConfig
from hermes_sim.routing.router import HEAVY_THRESHOLD_TOKENS, LIGHT_SHARE, NUM_CHOICES
from hermes_sim.routing.table import ROUTERS
from hermes_sim.sim.advance import act, push
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.state.arrays import EngineArrays
from tests.one_engine import Options, make_arrays

ENGINE = Options(num_blocks=64, block_tokens=16, max_num_seqs=8, max_num_batched_tokens=512)
OPTIONS = np.zeros(3)
OPTIONS[HEAVY_THRESHOLD_TOKENS], OPTIONS[LIGHT_SHARE], OPTIONS[NUM_CHOICES] = 1000, 0.5, 2


def four_engines() -> EngineArrays:
    """Engines 0 to 3 with 3, 1, 2 and 1 requests; engine 1 has the most tokens."""
    arrays = make_arrays(
        Options(num_blocks=64, block_tokens=16, max_num_seqs=8, max_num_batched_tokens=512), num_rows=20, num_engines=4
    )
    row = 0
    for e, prompts in enumerate([[10, 10, 10], [500], [20, 20], [100]]):
        for prompt in prompts:
            arrays.row_prompt[row], arrays.row_output[row] = prompt, 5 if e != 3 else 50
            push(arrays.handle, e, e, row, 0.0, ARRIVAL)
            row += 1
    return arrays


def choose(kind: str, arrays: EngineArrays, *, row: int = 19, turn: int = 0, draw: float = 0.3) -> int:
    candidates = np.arange(4, dtype=np.int64)
    return int(ROUTERS[kind].choose(arrays.handle, candidates, row, turn, draw, OPTIONS))


def test_the_schema_takes_what_the_table_has() -> None:
    for kind in ROUTERS:
        assert RoutingConfig(kind=kind).router() is ROUTERS[kind]
    assert RoutingConfig.model_json_schema()["properties"]["kind"]["enum"] == list(ROUTERS)


@pytest.mark.parametrize("kind", ROUTERS)
def test_a_candidate_is_chosen(kind: str) -> None:
    """Conformance: whatever the draw and the turn, an engine of the list, and the same one every time."""
    arrays = four_engines()
    candidates = np.array([1, 3], np.int64)
    for turn, draw in enumerate(np.linspace(0, 1, 50, endpoint=False)):
        first = ROUTERS[kind].choose(arrays.handle, candidates, 19, turn, draw, OPTIONS)
        assert first in (1, 3)
        assert first == ROUTERS[kind].choose(arrays.handle, candidates, 19, turn, draw, OPTIONS)
    assert ROUTERS[kind].choose(arrays.handle, np.array([2], np.int64), 19, 7, 0.9, OPTIONS) == 2


def test_round_robin_takes_turns() -> None:
    arrays = four_engines()
    assert [choose("round_robin", arrays, turn=turn) for turn in range(6)] == [0, 1, 2, 3, 0, 1]


def test_random_is_uniform_in_the_draw() -> None:
    arrays = four_engines()
    assert [choose("random", arrays, draw=draw) for draw in (0.0, 0.26, 0.74, 0.999999)] == [0, 1, 2, 3]


def test_least_of_each() -> None:
    arrays = four_engines()
    # requests 3, 1, 2, 1: first of the smallest. tokens 3 x 14, 504, 48, 149. outputs 15, 5, 10, 50
    assert choose("least_outstanding_requests", arrays) == 1
    assert choose("least_outstanding_tokens", arrays) == 0
    assert choose("least_tokens_left", arrays) == 1


def test_least_kv_counts_blocks_in_use() -> None:
    arrays = four_engines()
    for e in range(4):
        act(arrays.handle, e)
    # blocks of 16 tokens: 3, 32, 4, 7
    assert choose("least_kv", arrays) == 0


def test_power_of_two_never_takes_the_worse_of_two() -> None:
    arrays = four_engines()
    pair = np.array([0, 2], np.int64)
    for draw in np.linspace(0, 1, 20, endpoint=False):
        assert ROUTERS["power_of_two_choices"].choose(arrays.handle, pair, 19, 0, draw, OPTIONS) == 2


def test_power_of_two_draws_every_pair() -> None:
    arrays = four_engines()
    arrays.load_requests[:] = [0, 1, 2, 3]
    chosen = [choose("power_of_two_choices", arrays, draw=draw) for draw in np.linspace(0, 1, 4000, endpoint=False)]
    # the least of two of four: 0 in 3 of 6 pairs, 1 in 2, 2 in 1, 3 in none; 4.9 sigma at most
    shares = np.bincount(chosen, minlength=4) / 4000
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0], abs=0.04)


def test_heavy_and_light_apart() -> None:
    arrays = four_engines()
    arrays.row_prompt[19] = 999
    assert choose("heavy_light", arrays) == 0
    arrays.row_prompt[19] = 1000
    assert choose("heavy_light", arrays) == 2


def test_a_session_stays_where_it_is() -> None:
    arrays = four_engines()
    arrays.content_session[:] = 5
    assert len({choose("session_affinity", arrays, row=row, draw=row / 20) for row in range(20)}) == 1
    arrays.content_session[:] = np.arange(20)
    assert len({choose("session_affinity", arrays, row=row) for row in range(20)}) == 4
    arrays.content_session[:] = -1
    assert choose("session_affinity", arrays) == choose("least_outstanding_tokens", arrays)


def test_prefix_aware_finds_the_warm_cache() -> None:
    arrays = make_arrays(ENGINE, num_rows=4, num_engines=3)
    arrays.content_group[:2], arrays.content_group_tokens[:2] = 9, 160
    arrays.row_prompt[:], arrays.row_output[:] = 200, 1
    push(arrays.handle, 2, 2, 0, 0.0, ARRIVAL)
    act(arrays.handle, 2)
    act(arrays.handle, 2)
    candidates = np.arange(3, dtype=np.int64)
    router = ROUTERS["prefix_aware"]
    assert router.choose(arrays.handle, candidates, 1, 0, 0.5, OPTIONS) == 2  # 160 tokens of its prompt are there
    assert router.choose(arrays.handle, candidates, 2, 0, 0.5, OPTIONS) == 0  # a stranger: all alike, the first
    for row in (2, 3):  # the warm engine's queue outweighs what the cache saves
        push(arrays.handle, 2, 2, row, 1.0, ARRIVAL)
    assert router.choose(arrays.handle, candidates, 1, 0, 0.5, OPTIONS) == 0
