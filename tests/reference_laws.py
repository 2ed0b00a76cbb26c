"""Laws of a token engine that hold between any two of its acts, and those of a step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.reference_blocks import ROOT_HASH
from tests.reference_counts import padded_tokens
from tests.reference_records import Sequence
from tests.reference_scheduler import Batch

if TYPE_CHECKING:
    from tests.reference_engine import ReferenceEngine


def check_engine(engine: ReferenceEngine) -> None:
    check_requests(engine)
    check_tokens(engine)
    check_slots(engine)
    check_owners(engine)
    check_hashes(engine)
    check_tree(engine)


def holders(engine: ReferenceEngine) -> list[Sequence]:
    """All sequences with a slot, wherever they are."""
    return [sequence for sequence in everybody(engine) if sequence.holds_slot]


def everybody(engine: ReferenceEngine) -> list[Sequence]:
    scheduler = engine.scheduler
    return [
        *scheduler.running, *scheduler.line.line, *engine.reserved.values(), *engine.reserve_line,
        *engine.held.values(),
    ]  # fmt: skip


def check_requests(engine: ReferenceEngine) -> None:
    """Every visit is in exactly one place; no list is out of order or over its limit."""
    rows = [sequence.row for sequence in everybody(engine)] + engine.rejected
    rows += [row for row in engine.finish_s if row not in engine.held]
    assert len(rows) == len(set(rows))
    assert set(rows) == engine.rows
    line = engine.scheduler.line
    assert len(engine.scheduler.running) <= engine.options.max_num_seqs
    if line.is_sorted and line.is_in_order:
        urgencies = [sequence.urgency for sequence in line.line]
        assert urgencies == sorted(urgencies)


def check_tokens(engine: ReferenceEngine) -> None:
    """Progress stays within what is known or on its way, and only those with KV have any."""
    scheduler = engine.scheduler
    pending = Counter(
        row
        for batch in scheduler.in_flight
        for row, work in batch.works.items()
        if work.progresses and work.reaches_end and work.sequence.num_output > 0
    )
    for sequence in everybody(engine):
        assert sequence.num_generated <= max(sequence.num_output, 0)
        assert sequence.num_pending == (pending[sequence.row] if engine.options.async_scheduling else 0)
        assert sequence.holds_slot or not sequence.blocks
        assert sequence.holds_slot or sequence.is_swapped or sequence.num_computed == 0
        assert not (sequence.holds_slot and sequence.is_swapped)
        most = sequence.num_tokens + sequence.num_pending
        in_flight = [batch.works[sequence.row] for batch in scheduler.in_flight if sequence.row in batch.works]
        assert sequence.num_computed <= most + sum(work.num_drafts for work in in_flight)
    for sequence in scheduler.line.line:
        assert sequence.num_to_do >= 1
        assert not any(sequence.row in batch.works for batch in scheduler.in_flight)
    swapped = sum(sequence.num_swapped_blocks for sequence in everybody(engine))
    assert swapped == engine.cache.num_swapped_blocks <= engine.options.swap_blocks


def check_slots(engine: ReferenceEngine) -> None:
    scheduler = engine.scheduler
    assert len(holders(engine)) == scheduler.num_slots_held <= scheduler.num_slots
    assert all(sequence.holds_slot for sequence in scheduler.running)


def check_owners(engine: ReferenceEngine) -> None:
    """Owned + free = all; every entry of a table is owned; tables are as long as what they store."""
    pool, cache = engine.cache.pool, engine.cache
    num_owners: Counter[int] = Counter()
    for sequence in holders(engine):
        num_owners.update(block.block_id for block in sequence.blocks if block is not None)
        num_owners.update(block.block_id for block in sequence.window_extras)
        assert len(sequence.blocks) >= cache.num_blocks(promised(engine, sequence)) - (not sequence.is_copied)
        assert len(sequence.blocks) + len(sequence.window_extras) <= cache.cost(len(sequence.blocks))
        num_slid = sum(block is None for block in sequence.blocks)
        assert sequence.blocks[:num_slid] == [None] * num_slid
    free = [block.block_id for block in pool.free]
    assert len(free) == len(set(free))
    assert len(free) + len(num_owners) == len(pool.blocks)
    assert all(block.num_owners == num_owners[block.block_id] for block in pool.blocks)
    assert set(free).isdisjoint(num_owners)


def promised(engine: ReferenceEngine, sequence: Sequence) -> int:
    """Tokens stored when all that is scheduled is done."""
    wave = engine.scheduler.wave
    if wave is not None and sequence.row in wave.works:
        return wave.works[sequence.row].end
    return sequence.num_computed


def check_hashes(engine: ReferenceEngine) -> None:
    """The hash table and the blocks agree; a shared or cached block holds what its owners believe it holds."""
    pool, cache = engine.cache.pool, engine.cache
    assert {block.block_hash: block for block in pool.blocks if block.block_hash is not None} == pool.cached
    assert engine.options.prefix_caching or not pool.cached
    for sequence in holders(engine):
        num_full = promised(engine, sequence) // engine.options.block_tokens
        for index, block in enumerate(sequence.blocks):
            if block is not None:
                assert block.num_owners == 1 or index < num_full
                assert block.block_hash is None or block.block_hash == cache.block_hash(sequence, index)
        assert all(block.num_owners == 1 and block.block_hash is None for block in sequence.window_extras)


def check_tree(engine: ReferenceEngine) -> None:
    """Radix: whatever is cached can be found. Unless windows slide, which give up the front of a chain."""
    if engine.options.prefix_cache != "radix" or engine.options.all_layers_slide:
        return
    cached = engine.cache.pool.cached
    assert all(block.parent_hash == ROOT_HASH or block.parent_hash in cached for block in cached.values())


def check_step(engine: ReferenceEngine, batch: Batch) -> None:
    """The budget holds, save for one prompt of a policy without chunks that no step could hold."""
    options, running = engine.options, {sequence.row for sequence in engine.scheduler.running}
    works = batch.works.values()
    assert works
    assert all(work.num_tokens > 0 for work in works)
    assert all(row in running for row in batch.works)
    assert all(work.is_decode or work.num_drafts == 0 for work in works)
    prompts = [work.num_tokens for work in works if not work.is_decode]
    decodes = [work.num_tokens for work in works if work.is_decode]
    switches = options.switches
    if not switches.mix and prompts:
        entered = {row for row, _ in batch.admitted}
        assert all(row in entered or not work.is_decode for row, work in batch.works.items())
    if switches.by_layers:
        assert sum(decodes) <= options.max_num_batched_tokens
        return
    is_lone_giant = len(prompts) == 1 and prompts[0] > options.max_num_batched_tokens and not switches.chunk_prefill
    if switches.padding != "none" and prompts and not is_lone_giant:
        assert padded_tokens(prompts, switches.padding) <= options.max_num_batched_tokens
    assert sum(decodes) + (0 if is_lone_giant else sum(prompts)) <= options.max_num_batched_tokens
