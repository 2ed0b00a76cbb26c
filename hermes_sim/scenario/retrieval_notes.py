"""What searches of a workload find, where somebody has measured it."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.scenario.scenario import Scenario
from hermes_sim.stages.retrieve import Retrieve


def retrieval_notes(scenario: Scenario) -> Iterator[str]:
    """Recall of every index that states a curve, and where that comes from."""
    for pipeline in scenario.workload.pipelines:
        for stage in pipeline.stages:
            if not isinstance(stage, Retrieve) or stage.index.recall is None:
                continue
            recall, source = stage.index.expected_recall(), stage.index.recall.source
            yield f"stage '{stage.name}': recall {recall:.3g}, {source.kind}: {source.title} ({source.where})"
