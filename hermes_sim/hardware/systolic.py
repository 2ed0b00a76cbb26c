"""Systolic arrays of a device: what decides how well a product fills them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Bytes, Description, PositiveInt

Dataflow = Literal["weight_stationary", "output_stationary"]


class Systolic(Description):
    """Equal arrays of multiply-accumulate cells (perf/operators/systolic.py).

    Where a device states them, cycles counted from the shape stand in place of tiles and waves; a product keeps its
    launch, its `memory_frac`, and `compute_frac`: the share of the cycles in which the arrays do not wait. One cycle is
    2 x rows x columns x num_arrays FLOPs over the peak of the dtype.
    """

    rows: PositiveInt
    columns: PositiveInt
    num_arrays: PositiveInt = 1
    dataflow: Dataflow = "weight_stationary"
    """What stays in the cells: a tile of the weights, while rows of activations stream through; or of the results."""
    preloads_weights: bool = True
    """The next tile's weights are shifted in behind those in use; False: each tile waits for its own."""
    buffer_bytes: Bytes | None = Field(default=None, alias="buffer", gt=0.0)
    """On-chip memory of the tiles of one product; what does not fit is read again. No limit if not given."""
    double_buffering: bool = True
    """Half of the buffer is filled while the other half is used; False: reading and computing take turns."""
