"""One operator of a forward pass: its shape, its arithmetic and the bytes it moves, without any notion of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.models.architecture import Part
from hermes_sim.models.search import SearchWork
from hermes_sim.models.sparsity import Sparsity

OperatorKind = Literal["gemm", "attention", "elementwise", "scan", "collective", "gather"]


@dataclass(frozen=True, slots=True)
class Operator:
    """`count` equal calls of one kernel on one device (a tensor-parallel shard), per step.

    `flops` and `bytes` are per call. Where they are 0 and m, n, k are given they follow from a dense
    C[m, n] = A[m, k] B[k, n] of one dtype: 2 m n k FLOPs (2 per multiply-add), each matrix moved once.
    For a collective `bytes` is the size of the message on each device.
    """

    name: str
    kind: OperatorKind
    count: int = 1
    flops: float = 0.0
    bytes: float = 0.0
    m: int = 0
    n: int = 0
    k: int = 0
    dtype: Dtype = "bf16"
    """Of the arithmetic; weights stored narrower are in `bytes`."""
    weight_dtype: Dtype | None = None
    """Of the weights as stored, where that is not `dtype`: they are widened on the way."""
    sparsity: Sparsity | None = None
    """Zeros of the weights in a fixed pattern; `bytes` and `flops` are without them, m, n, k with them."""
    part: Part | None = None
    """Of a product with weights: the group of matrices that they belong to."""
    num_groups: int = 1
    """Independent parts of one call: experts held on this device, each with its own B[k, n] (m counts the rows of all);
    queries of one search.
    """
    core_s: float = 0.0
    """Of a call whose time on one core is stated (work on text): its num_groups parts run on as many cores."""
    search: SearchWork | None = None
    """Of a vector search: what one query does; num_groups is the number of queries."""

    @property
    def flops_per_call(self) -> float:
        """Arithmetic of one call: as stated, or 2 m n k."""
        if self.flops > 0.0:
            return self.flops
        return 2.0 * self.m * self.n * self.k

    @property
    def bytes_per_call(self) -> float:
        """Bytes moved by one call: as stated, or both inputs and the output once."""
        if self.bytes > 0.0:
            return self.bytes
        elements = float(self.m) * self.k + float(self.k) * self.n + float(self.m) * self.n
        return DTYPE_BYTES[self.dtype] * elements

    @property
    def total_flops(self) -> float:
        """Arithmetic of all calls of a step."""
        return self.count * self.flops_per_call

    @property
    def total_bytes(self) -> float:
        """Bytes of all calls of a step."""
        return self.count * self.bytes_per_call
