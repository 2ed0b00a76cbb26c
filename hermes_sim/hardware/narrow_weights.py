"""What it takes to multiply weights that are stored narrower than the device multiplies."""

from __future__ import annotations

from typing import Final

from hermes_sim.core.schema import Dtype

WIDENING_OPS: Final[dict[Dtype, float]] = {
    "fp8": 0.5, "int8": 0.5, "fp6": 1.5, "int6": 1.5, "int5": 1.5, "fp4": 1.0, "int4": 1.0, "int3": 1.5, "int2": 1.0,
}  # fmt: skip
"""Vector instructions, per lane, that bring one stored weight to the dtype it is multiplied in, scale included.

int8 and int4: the values on a grid of halves that leave least bias in TensorRT-LLM's weight-only products on an A100
(fitted side; tests/validation/test_widened_products.py). They are what counting gives: a byte permute or a masked
insert and a subtraction, each for two to four weights at once (Kim et al., "Who Says Elephants Can't Run", arXiv
2211.10017, section 3; Marlin, arXiv 2408.11743, section 3.4). fp8 and fp4 are taken for alike; widths that do not
divide a word need further shifts (FP6-LLM, arXiv 2401.14112, section 5): estimates.
"""

EXPANDING_OPS: Final = 1.0
"""The same to put one weight of a sparse pattern into its place, on a device that does not skip the zeros. An estimate:
a masked insert for each weight, zeros counted."""

UNSTATED_VECTOR_SHARE: Final = 1.0 / 16.0
"""Rate of the vector units over the dense peak of the widest dtype, where a device states neither; an estimate, that
of tensor cores over the others on A100 (fp16) and H100."""
