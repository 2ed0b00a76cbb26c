"""What the cost of a step sees of its batch: sums over sequences, padded where the policy pads."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import replace

from tests.reference_records import BatchCounts, Options, Padding, Sequence, Work


def count_batch(works: SequenceOf[Work], running: SequenceOf[Sequence], options: Options) -> BatchCounts:
    """Counts of a step."""
    switches = options.switches
    if switches.padding != "none" and not all(work.is_decode for work in works):
        return count_padded_prompts(works, switches.padding)
    if switches.static_batch:
        return count_static_decodes(works, running)
    return count_sequences(works)


def count_sequences(works: SequenceOf[Work]) -> BatchCounts:
    """A decode computes the token just generated and its drafts; all else, recomputation included, is prefill."""
    decodes = [work for work in works if work.is_decode]
    prompts = [work for work in works if not work.is_decode]
    num_decode_tokens = sum(work.num_tokens for work in decodes)
    return BatchCounts(
        num_tokens=sum(work.num_tokens for work in works),
        num_sampled=num_decode_tokens + sum(work.reaches_end and work.progresses for work in prompts),
        num_decode=len(decodes),
        num_decode_tokens=num_decode_tokens,
        decode_context_sum=sum(work.end for work in decodes),
        decode_context_max=max((work.end for work in decodes), default=0),
        num_prefill=len(prompts),
        prefill_token_pairs=sum(pairs(work.num_tokens, work.context) for work in prompts),
        prefill_context_sum=sum(work.end for work in prompts),
    )


def count_static_decodes(works: SequenceOf[Work], running: SequenceOf[Sequence]) -> BatchCounts:
    """Every sequence of the batch, done or not, at the longest context of all."""
    num_running = len(running)
    longest = max([*(work.end for work in works), *(sequence.num_tokens for sequence in running)])
    return BatchCounts(
        num_tokens=num_running,
        num_sampled=num_running,
        num_decode=num_running,
        num_decode_tokens=num_running,
        decode_context_sum=num_running * longest,
        decode_context_max=longest,
    )


def count_padded_prompts(works: SequenceOf[Work], padding: Padding) -> BatchCounts:
    """Rows as long as the longest: one for each sequence, or as many as all fit in. Histories are read as they are.

    A sequence that is cached but for its last token reads its context as a decode does, and takes a row.
    """
    counts = count_sequences(works)
    longest = max(work.num_tokens for work in works)
    num_rows = padded_tokens([work.num_tokens for work in works], padding) // longest
    histories = sum(work.context for work in works if not work.is_decode)
    return replace(
        counts,
        num_tokens=num_rows * longest,
        num_prefill=num_rows,
        prefill_token_pairs=num_rows * pairs(longest, 0) + longest * histories,
        prefill_context_sum=num_rows * longest + histories,
    )


def pairs(num_tokens: int, context: int) -> int:
    """Query-key pairs of new tokens behind a context, under the causal mask."""
    return num_tokens * context + num_tokens * (num_tokens + 1) // 2


def padded_tokens(num_tokens: SequenceOf[int], padding: Padding) -> int:
    """Tokens of prompts in rows as long as the longest."""
    longest = max(num_tokens)
    return longest * (len(num_tokens) if padding == "padded" else num_bins(num_tokens, longest))


def num_bins(sizes: SequenceOf[int], capacity: int) -> int:
    """Bins of first-fit-decreasing (Johnson, 1973; prepacking: arXiv 2404.09529)."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = next((place for place, room in enumerate(rooms) if size <= room), None)
        if place is None:
            rooms.append(capacity - size)
        else:
            rooms[place] -= size
    return len(rooms)
