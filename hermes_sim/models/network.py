"""What networks that are no language models have in common: encoders of pictures and sound, makers of pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

from hermes_sim.core.schema import DTYPE_BYTES, Description, Dtype, Source
from hermes_sim.models.operator import Operator


class Network(Description):
    """One network of the library; its kind says what it is. A stage names it, or describes it itself."""

    name: str
    title: str
    hugging_face_ids: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    dtype: Dtype = "bf16"
    """Of weights and activations."""
    published_num_parameters: float | None = None
    """For the test: what the authors state of `num_parameters`."""
    sources: dict[str, Source]

    @abstractmethod
    def num_parameters(self) -> int:
        """All weights, biases and norms."""

    def weight_bytes(self, dtype: Dtype | None = None) -> float:
        """Of all weights, in the network's own precision or in another."""
        return self.num_parameters() * DTYPE_BYTES[dtype or self.dtype]


class Layers:
    """Collects the operators of a network layer by layer, and the parameters of what they multiply by.

    `dtype` is that of weights and activations. A count above one repeats a layer, weights and all.
    """

    def __init__(self, dtype: Dtype) -> None:
        self.dtype = dtype
        self.operators: list[Operator] = []
        self.num_parameters = 0

    def linear(self, name: str, rows: float, outputs: int, inputs: int, *, bias: bool = True, count: int = 1) -> None:
        """`rows` vectors of `inputs` numbers, each to `outputs` numbers."""
        self.num_parameters += count * (outputs * inputs + (outputs if bias else 0))
        self._multiply(name, rows, outputs, inputs, rows * (inputs + outputs), count)

    def convolution(
        self, name: str, pixels: float, outputs: int, inputs: int, *, kernel: int = 3, stride: int = 1
    ) -> None:
        """Square kernel as an implicit product: a row for each of the `pixels` of the result, which is not unrolled.

        The input has stride^2 times as many pixels, each read once.
        """
        self.num_parameters += outputs * inputs * kernel**2 + outputs
        moved = pixels * (stride**2 * inputs + outputs)
        self._multiply(name, pixels, outputs, inputs * kernel**2, moved, 1)

    def norm(
        self, name: str, rows: float, width: int, *, weights: int = 2, passes: float = 3.0, count: int = 1
    ) -> None:
        """Statistics and normalisation read, the result written: three passes; `weights` numbers a channel."""
        self.num_parameters += count * weights * width
        self.elementwise(name, passes * rows * width, count=count)

    def elementwise(self, name: str, num_elements: float, *, count: int = 1) -> None:
        """`num_elements` numbers read or written."""
        moved = num_elements * DTYPE_BYTES[self.dtype]
        self.operators.append(Operator(name, "elementwise", count=count, bytes=moved, dtype=self.dtype))

    def attention(
        self, name: str, sequences: float, queries: float, keys: float, width: int, *, count: int = 1
    ) -> None:
        """Every query of a sequence with every key of it, all heads together `width` numbers wide; softmax left out."""
        self.operators.append(
            Operator(
                name,
                "attention",
                count=count,
                flops=4.0 * sequences * queries * keys * width,
                bytes=2.0 * sequences * (queries + keys) * width * DTYPE_BYTES[self.dtype],
                dtype=self.dtype,
            )
        )

    def _multiply(self, name: str, rows: float, outputs: int, inputs: int, moved: float, count: int) -> None:
        self.operators.append(
            Operator(
                name,
                "gemm",
                count=count,
                flops=2.0 * rows * outputs * inputs,
                bytes=(float(outputs) * inputs + moved) * DTYPE_BYTES[self.dtype],
                m=max(1, round(rows)),
                n=outputs,
                k=inputs,
                dtype=self.dtype,
            )
        )

    def merged(self) -> tuple[Operator, ...]:
        """Equal operators as one with their counts summed: the same work in fewer lines."""
        counts: dict[Operator, int] = {}
        for operator in self.operators:
            one = replace(operator, count=1)
            counts[one] = counts.get(one, 0) + operator.count
        return tuple(replace(operator, count=count) for operator, count in counts.items())


def repeated(operators: tuple[Operator, ...], times: int) -> Iterator[Operator]:
    """The operators of so many equal passes."""
    return (replace(operator, count=operator.count * times) for operator in operators) if times > 0 else iter(())
