"""Which drafts are accepted: uniform numbers that depend on (seed, row, generated, position) and on nothing else."""

from __future__ import annotations

from tests.reference_records import Options, Sequence

WORD = (1 << 64) - 1


def mix(first: int, second: int) -> int:
    """64-bit hash of two numbers, never 0 (finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    x = (first * 0x9E3779B97F4A7C15 + second + 0x7F4A7C159E3779B9) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return (x ^ (x >> 31)) or 1


def uniform(seed: int, row: int, num_generated: int, position: int) -> float:
    """In [0, 1), with 53 random bits."""
    return (mix(mix(seed, row), num_generated * 64 + position) >> 11) * 2.0**-53


def num_accepted(options: Options, sequence: Sequence, num_positions: int) -> int:
    """Leading drafts that the model accepts."""
    if options.acceptance == "trace":
        trace = options.acceptance_values
        return min(int(trace[mix(sequence.row, sequence.num_generated) % len(trace)]), num_positions)
    accepted = 0
    while accepted < num_positions and uniform(
        options.speculative_seed, sequence.row, sequence.num_generated, accepted
    ) < acceptance_rate(options, accepted):
        accepted += 1
    return accepted


def acceptance_rate(options: Options, position: int) -> float:
    """Chance of a position if all before it were accepted; of tree_width equal candidates one is enough."""
    if options.acceptance == "per_position":
        return options.acceptance_values[position]
    return 1.0 - (1.0 - options.acceptance_values[0]) ** options.tree_width


def next_num_drafts(options: Options, num_drafts: int, accepted: int, num_positions: int) -> int:
    """Positions of a sequence's next step: two more after all were accepted, else one less."""
    if not options.adaptive_drafts:
        return num_drafts
    step = 2 if accepted == num_positions else -1
    return min(max(num_drafts + step, 1), options.draft_tokens)
