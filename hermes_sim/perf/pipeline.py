"""How the layers of a model lie on the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence


def stage_layers(num_layers: int, pp: int, layers_per_stage: Sequence[int] | None = None) -> tuple[int, ...]:
    """Layers of each stage: as stated, or even; what is left over goes to the stages before the last, last ones first.

    The last stage has the logits to do besides, so it gets no extra layer. Source: vLLM, get_pp_indices. ValueError if
    what is stated has another number of stages or of layers.
    """
    if layers_per_stage is not None:
        if len(layers_per_stage) != pp or sum(layers_per_stage) != num_layers or min(layers_per_stage) < 1:
            stated = ", ".join(str(number) for number in layers_per_stage)
            raise ValueError(f"layers_per_stage ({stated}) must state {pp} stages with {num_layers} layers in all")
        return tuple(layers_per_stage)
    stages = [num_layers // pp] * pp
    for stage in range(num_layers % pp):
        stages[-2 - stage] += 1
    return tuple(stages)


def stage_interval_frac(stages: Sequence[int], layers_s: float, sampling_s: float) -> float:
    """Time of the slowest stage over that of the whole pass; the last stage makes the logits. 1 without a pipeline.

    layers_s, sampling_s: of all layers, and of logits and sampling, in a full decode batch. Layers count alike.
    """
    if len(stages) == 1:
        return 1.0
    num_layers = sum(stages)
    most, last = max(stages) / num_layers, stages[-1] / num_layers
    return float(max(most * layers_s, last * layers_s + sampling_s) / (layers_s + sampling_s))
