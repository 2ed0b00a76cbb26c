"""Compute-in-memory arrays: weights stay in the cells, inputs pass along the rows, products add up down the columns.

Digital macros multiply by logic beside SRAM cells, inputs bit by bit (Fujiwara et al., ISSCC 2024, paper 34.4); analog
tiles add currents of non-volatile cells and convert them (Buechel et al., Nature Computational Science 5, 2025,
doi 10.1038/s43588-024-00753-x). Equations: docs/compute-in-memory.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from typing import Annotated, Literal

from pydantic import Field, field_validator

from hermes_sim.core.schema import (
    BytesPerSecond,
    Description,
    Dtype,
    Fraction,
    Hertz,
    Joules,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seconds,
    Watts,
    one_of,
)
from hermes_sim.core.sparsity_pattern import index_bits, kept_frac, pattern_numbers


class ArrayOperand(Description):
    """How a dtype is multiplied: as integers of so many bits, floating point after its exponents are aligned."""

    bits: PositiveInt
    """Of a weight and of an input."""
    energy_factor: float = Field(default=1.0, ge=1.0)
    """Energy with alignment of exponents, over that of the bare products."""


class DigitalArray(Description):
    """SRAM macros with an adder tree under the columns; weights stationary, inputs bit by bit."""

    kind: Literal["digital"] = "digital"
    num_macros: PositiveInt
    """Of one device."""
    rows: PositiveInt
    """Inputs of one macro: elements of k."""
    columns: PositiveInt
    """Bit cells of a row; a weight takes as many as it has bits."""
    row_groups: PositiveInt = 1
    """Parts of the rows that share the adder tree and take turns."""
    input_bits_per_cycle: PositiveInt = 1
    clock_hz: Hertz = Field(alias="clock")
    tree_cycles: PositiveInt = 1
    """From the last input bit to the sum: depth of the adder tree and the accumulator."""
    operands: dict[Dtype, ArrayOperand] = Field(min_length=1)
    write_bytes_per_s: BytesPerSecond = Field(alias="write_bandwidth")
    """Into all macros of the device together, through their write ports."""
    residency: Literal["resident", "reload"] = "resident"
    """resident: all weights lie in the macros, or the file is refused. reload: what does not fit is written again in
    every step, from the device's memory."""
    write_overlaps: bool = False
    """Macros have a second set of cells that is written while the first computes."""
    energy_per_bit_product_j: Joules = Field(alias="energy_per_bit_product")
    """One bit of a weight times one bit of an input, adder tree included."""
    energy_per_bit_written_j: Joules = Field(alias="energy_per_bit_written")
    power_limit_w: Watts | None = Field(default=None, alias="power_limit")
    """Of all macros: faster work waits."""
    macro_area_mm2: PositiveFloat
    patterns: tuple[str, ...] = ()
    """N:M patterns of weights whose zeros take no cells and no cycles: `2:4` alone is fixed 2:4. Empty: dense only."""
    num_sub_macros: PositiveInt = 1
    """Parts of a macro that group themselves for any N:M up to M = 2 x parts (FlexCiM, arXiv 2504.14365); 1: fixed."""
    merge_cycles: NonNegativeFloat = 0.0
    """More cycles of a product: sums of sub-macros are merged."""
    merge_energy_frac: Fraction = 0.0
    """More energy of products: inputs are selected or distributed, sums merged."""

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            pattern_numbers(pattern)
        return patterns

    @property
    def num_tiers(self) -> int:
        return 1

    def columns_of_weight(self, dtype: Dtype) -> int:
        """Bit cells of one weight."""
        return self.operands[dtype].bits

    def held_pattern(self, pattern: str | None) -> str | None:
        """The sparsest pattern that the macros run and that such weights fulfil; None: as dense weights."""
        if pattern is None:
            return None
        able = [one for one in self._patterns() if fulfils(pattern, one)]
        return min(able, key=lambda one: (kept_frac(one), pattern_numbers(one)[1]), default=None)

    def _patterns(self) -> Iterator[str]:
        yield from self.patterns
        group = 2
        while self.num_sub_macros > 1 and group <= 2 * self.num_sub_macros:
            yield from (f"{number}:{group}" for number in range(1, group))
            group *= 2

    def vector_s(self, dtype: Dtype) -> float:
        """Between two input vectors of a macro: cycles of the input's bits, for each group of rows in turn."""
        return ceil(self.operands[dtype].bits / self.input_bits_per_cycle) * self.row_groups / self.clock_hz

    def latency_s(self, num_row_tiles: int) -> float:
        """From the last input to the result: adder tree, and partial sums of macros that split k, a level a cycle."""
        return (self.tree_cycles + ceil(log2(max(num_row_tiles, 1))) + self.merge_cycles) / self.clock_hz

    def product_j(self, num_products: float, dtype: Dtype) -> float:
        """Joules of so many multiply-adds."""
        operand = self.operands[dtype]
        per_product = operand.bits * operand.bits * self.energy_per_bit_product_j * operand.energy_factor
        return num_products * per_product * (1.0 + self.merge_energy_frac)

    def weight_bits(self, dtype: Dtype, pattern: str | None) -> float:
        """Written for one weight, zeros counted: the kept ones, and their places in the group."""
        if pattern is None:
            return float(self.operands[dtype].bits)
        return kept_frac(pattern) * (self.operands[dtype].bits + index_bits(pattern))

    def peak_flops_per_s(self, dtype: Dtype) -> float:
        """All macros at work on dense weights, within the power limit."""
        products = self.num_macros * self.rows * (self.columns // self.columns_of_weight(dtype))
        peak = 2.0 * products / self.vector_s(dtype)
        if self.power_limit_w is None:
            return peak
        return min(peak, 2.0 * self.power_limit_w / self.product_j(1.0, dtype))


class AnalogArray(Description):
    """Crossbar tiles of non-volatile cells, tiers of them stacked; their weights are written once, before service."""

    kind: Literal["analog"] = "analog"
    num_tiles: PositiveInt
    """Of one device."""
    rows: PositiveInt
    columns: PositiveInt
    """Weights of a row: a differential pair of devices is one."""
    num_tiers: PositiveInt = 1
    """Crossbars over each other that share the tile's converters: one of them computes at a time."""
    integration_s: Seconds = Field(alias="integration")
    """Input pulses along the rows."""
    adc_conversion_s: Seconds = Field(alias="adc_conversion")
    adc_bits: PositiveInt
    """Resolution of a result; the conversion time is for it."""
    columns_per_adc: PositiveInt = 1
    """Converted one after the other."""
    energy_per_mvm_j: Joules = Field(alias="energy_per_mvm")
    """One tier of one tile, all rows and columns, converters included."""
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    """Of operands that are taken as levels of the cells and pulses."""
    tile_area_mm2: PositiveFloat

    residency: Literal["resident"] = "resident"
    """Weights are static: all of them fit, or the file is refused."""
    power_limit_w: Watts | None = Field(default=None, alias="power_limit")

    @property
    def num_macros(self) -> int:
        return self.num_tiles

    def columns_of_weight(self, dtype: Dtype) -> int:
        """One: whatever a cell pair holds."""
        if dtype not in self.dtypes:
            raise KeyError(dtype)
        return 1

    def held_pattern(self, pattern: str | None) -> str | None:
        """A crossbar computes with its zeros."""
        return None

    def vector_s(self, dtype: Dtype) -> float:
        """Between two input vectors of a tile: the slower of pulses and converters, which are pipelined."""
        return max(self.integration_s, self.columns_per_adc * self.adc_conversion_s)

    def latency_s(self, num_row_tiles: int) -> float:
        """Of the stage that `vector_s` hides; partial sums are added in the converters' time."""
        return min(self.integration_s, self.columns_per_adc * self.adc_conversion_s)

    def peak_flops_per_s(self, dtype: Dtype) -> float:
        """One tier of every tile at work, within the power limit."""
        peak = 2.0 * self.num_tiles * self.rows * self.columns / self.vector_s(dtype)
        if self.power_limit_w is None:
            return peak
        return min(peak, 2.0 * self.rows * self.columns * self.power_limit_w / self.energy_per_mvm_j)


ARRAYS: dict[str, type[Description]] = {"digital": DigitalArray, "analog": AnalogArray}
CimArray = Annotated[DigitalArray | AnalogArray, one_of(ARRAYS, "kind of array")]


def fulfils(pattern: str, other: str) -> bool:
    """Whether weights of one pattern also fulfil the other, wherever their zeros lie.

    Of 1:4 weights no group of 8 has more than 2, and no pair more than 1; where neither M divides the other, nothing is
    promised.
    """
    number, group = pattern_numbers(pattern)
    other_number, other_group = pattern_numbers(other)
    if other_group % group == 0:
        return number * (other_group // group) <= other_number
    return group % other_group == 0 and min(number, other_group) <= other_number
