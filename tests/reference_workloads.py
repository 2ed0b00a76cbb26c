"""Random token engines and workloads for the oracle: small ones under pressure, every option drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.reference_records import POLICIES, Arrival, Options

PADDING_OR_LAYERS = ("static", "padded", "prepacked", "layered_prefill")
"""Policies without drafts."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One engine, or ranks in lockstep, and all that arrives."""

    options: Options
    num_ranks: int
    arrivals: tuple[Arrival, ...]
    groups: tuple[tuple[int, int], ...]
    """(group, tokens) of each row: that many first tokens are those of the group."""

    def content(self, row: int, index: int) -> int:
        """A sample's prompt is its parent's; what it generates is its own."""
        parent = self.parents.get(row, row)
        group, num_shared = self.groups[parent]
        end = (index + 1) * self.options.block_tokens
        if end <= num_shared:
            return 1_000_000 * (group + 1) + index
        owner = parent if end <= self.arrivals[parent].num_prompt else row
        return 1_000_000_000 * (owner + 1) + index

    @property
    def parents(self) -> dict[int, int]:
        return {row: arrival.row for arrival in self.arrivals for row, _ in arrival.samples}

    @property
    def num_rows(self) -> int:
        return len(self.arrivals) + len(self.parents)


@st.composite
def workloads(draw: st.DrawFn, *, max_arrivals: int = 16) -> Workload:
    options, num_ranks = draw(engines())
    number = draw(st.integers(1, max_arrivals))
    arrivals: list[Arrival] = []
    arrival_s = 0.0
    next_sample = number
    for row in range(number):
        arrival_s += draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0]))
        transfer_s = draw(st.sampled_from([None, None, None, 0.0, 0.75, 2.0]))
        num_samples = draw(st.sampled_from([0, 0, 0, 0, 1, 3]))
        samples = tuple((next_sample + index, draw(st.integers(2, 12))) for index in range(num_samples))
        next_sample += num_samples
        fewest = 2 if samples or transfer_s is not None else 0
        arrivals.append(
            Arrival(
                arrival_s,
                row,
                num_prompt=draw(st.one_of(st.integers(1, 50), st.integers(1, 12))),
                num_output=draw(st.integers(fewest, 20)),
                priority=draw(st.integers(0, 2)),
                client=draw(st.integers(0, 2)),
                deadline_s=draw(st.integers(0, 5)) / 2,
                samples=samples,
                transfer_s=transfer_s,
                rank=draw(st.integers(0, num_ranks - 1)),
                adapter=draw(st.integers(0, 4)) if options.max_adapters else 0,
            )
        )
    groups = tuple((draw(st.integers(0, 2)), draw(st.sampled_from([0, 12, 200]))) for _ in range(number))
    return Workload(options, num_ranks, tuple(arrivals), groups)


@st.composite
def engines(draw: st.DrawFn) -> tuple[Options, int]:
    """(options, ranks in lockstep)."""
    given: dict[str, Any] = {**draw(SIZES), **draw(RULES), **draw(CACHES), **draw(WINDOWS)}
    policy = given["policy"]
    if policy == "static":
        given["output_reserve_frac"] = 1.0
    can_pipe = policy != "layered_prefill"
    can_draft = policy not in PADDING_OR_LAYERS
    kinds = ["sync", "async"] + ["pipeline"] * can_pipe + ["drafts"] * can_draft
    kind = draw(st.sampled_from(kinds))
    if kind == "async":
        given["async_scheduling"] = True
    elif kind == "pipeline":
        given["num_stages"] = draw(st.integers(2, 4))
        given["stage_interval_frac"] = draw(st.sampled_from([0.25, 0.5]))
    elif kind == "drafts":
        given |= draw(drafts())
    can_have_ranks = kind != "pipeline" and policy != "static"
    num_ranks = draw(st.sampled_from([1, 1, 2, 3])) if can_have_ranks else 1
    return Options(**given), num_ranks


SIZES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "num_blocks": st.one_of(st.integers(8, 18), st.integers(4, 40)),
        "block_tokens": st.sampled_from([1, 2, 3, 4, 8]),
        "max_num_seqs": st.integers(1, 7),
        "max_num_batched_tokens": st.integers(1, 48),
        "num_layers": st.sampled_from([1, 2, 4]),
        "layer_group_tokens": st.sampled_from([1, 4, 16]),
        "swap_block_s": st.just(0.125),
        "copy_block_s": st.just(0.0625),
    }
)
RULES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(list(POLICIES)),
        "chunk_prompts": st.booleans(),
        "queue_order": st.sampled_from(["fcfs", "priority", "sjf", "least_slack", "fair_share", "longest_prefix"]),
        "long_prefill_token_threshold": st.sampled_from([0, 0, 1, 3, 9]),
        "full_sequence_gate": st.booleans(),
        "watermark_frac": st.sampled_from([0.0, 0.1, 0.3]),
        "output_reserve_frac": st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        "victim": st.sampled_from(["last", "fewest_generated"]),
        "preemption": st.sampled_from(["recompute", "swap"]),
        "swap_blocks": st.sampled_from([3, 10, 100]),
        "max_adapters": st.sampled_from([0, 0, 0, 1, 2, 3]),
    }
)
CACHES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"prefix_cache": "hash", "insert_at": "schedule"},
        {"prefix_cache": "hash", "insert_at": "step_end"},
        {"prefix_cache": "radix", "insert_at": "step_end"},
        {"prefix_caching": False},
    ]
)
WINDOWS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"window_blocks": st.integers(2, 5), "all_layers_slide": st.just(True)}),
    st.fixed_dictionaries({"window_blocks": st.integers(2, 5), "window_groups": st.integers(1, 3)}),
)


@st.composite
def drafts(draw: st.DrawFn) -> dict[str, Any]:
    """Options of speculative decoding."""
    num_drafts = draw(st.integers(1, 5))
    rates = st.floats(0.0, 1.0)
    counts = st.integers(0, num_drafts).map(float)
    acceptance, values = draw(
        st.one_of(
            st.tuples(st.just("constant"), st.tuples(rates)),
            st.tuples(st.just("per_position"), st.tuples(*[rates] * num_drafts)),
            st.tuples(st.just("trace"), st.tuples(counts, counts, counts)),
        )
    )
    return {
        "draft_tokens": num_drafts,
        "tree_width": draw(st.sampled_from([1, 1, 2, 3])),
        "adaptive_drafts": draw(st.booleans()),
        "draft_max_seqs": draw(st.sampled_from([None, 1, 3])),
        "speculative_seed": draw(st.integers(0, 2**62 - 1)),
        "acceptance": acceptance,
        "acceptance_values": values,
    }
