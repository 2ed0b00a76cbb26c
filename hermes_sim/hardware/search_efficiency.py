"""Coefficients of vector search on one core of a device."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, Description, Fraction, NonNegativeFloat, PositiveFloat, Seconds
from hermes_sim.hardware.fit_error import FitError


class SearchEfficiency(Description):
    """Of perf/search_cost.py; cycles are of the device's clock, on one core (GPU: streaming multiprocessor)."""

    call_s: Seconds = Field(alias="call")
    """One call of the library, whatever it searches."""
    list_s: Seconds = Field(alias="list")
    """Opening one inverted list."""
    code_list_s: Seconds = Field(alias="code_list")
    """The same of a list of codes."""
    table_s: Seconds = Field(alias="table")
    """Look-up tables of one query, whatever their size."""
    hop_s: Seconds = Field(alias="hop")
    """Following the links of one node of a graph: the list of links, what was visited, the queue of candidates."""
    access_s: Seconds = Field(alias="access")
    """One vector at a random place of memory, as far as other reads do not hide it."""
    vector_cycles: NonNegativeFloat
    """One vector of a list: loop, comparison with the worst result so far. Vectors that lie in one block, and codes in
    registers, are compared many at once."""
    lookup_cycles: PositiveFloat
    """One byte of a code: a look-up in a table of 256 numbers and an addition."""
    fast_lookup_cycles: PositiveFloat
    """One byte of 4-bit codes, by shuffles of registers."""
    block_flops_frac: Fraction
    """Share of the core's peak in distances between a query and vectors that lie in one block: an exhaustive search,
    centroids."""
    list_flops_frac: Fraction
    """The same of vectors of a list or of nodes of a graph, one after the other."""
    table_flops_frac: Fraction
    """The same of look-up tables: dot products of a few numbers, sums of two tables."""
    stream_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="stream")
    """What one core draws from memory reading list after list; if not given, its part of the device's bandwidth."""
    block_stream_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="block_stream")
    """The same reading one long block; `stream` if not given."""
    searches_per_core: PositiveFloat = 1.0
    """Queries that one core works on at the same time, hiding each other's waits."""
    in_sample: FitError | None = None
    held_out: FitError | None = None


ACCELERATOR: Final = SearchEfficiency(
    call=0,
    list="500 ns",
    code_list="500 ns",
    table=0,
    hop="1.2 us",
    access="20 ns",
    vector_cycles=0.1,
    lookup_cycles=0.1,
    fast_lookup_cycles=0.1,
    block_flops_frac=0.5,
    list_flops_frac=0.5,
    table_flops_frac=0.25,
    searches_per_core=8.0,
)
"""Judged, not measured. Shared memory has 32 banks, and random look-ups meet in one: ten a cycle are taken. A hop is
two dependent loads of 600 ns; the vectors of its links are read together. Eight blocks of threads on each
multiprocessor hide each other's waits."""
CORE: Final = SearchEfficiency(
    call="10 us",
    list="300 ns",
    code_list="500 ns",
    table="2 us",
    hop="500 ns",
    access="50 ns",
    vector_cycles=5.0,
    lookup_cycles=3.0,
    fast_lookup_cycles=0.3,
    block_flops_frac=0.15,
    list_flops_frac=0.15,
    table_flops_frac=0.5,
)
"""Of a processor's core: round figures, where a fit starts."""
