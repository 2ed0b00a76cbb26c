"""The workload file: what arrives, which stages a request passes, and the objectives it is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from hermes_sim.core.schema import Description, Name, NonNegativeInt, PositiveFloat, not_required, one_of
from hermes_sim.scenario.measure import Measure
from hermes_sim.scenario.service_class import Patience, ServiceClass
from hermes_sim.scenario.slo import Slo
from hermes_sim.stages import STAGES
from hermes_sim.stages.repeat import Repeat, Rounds
from hermes_sim.stages.stage import Stage
from hermes_sim.workload.traffic import Traffic

DEFAULT_PIPELINES = [
    {
        "name": "llm",
        "stages": [{"name": "prefill", "kind": "prefill"}, {"name": "decode", "kind": "decode", "after": ["prefill"]}],
    }
]
"""Where a workload names none: a language model alone."""


def stage_kind(stage: Stage) -> str:
    """Its key in STAGES."""
    return str(getattr(stage, "kind", ""))


class Pipeline(Description):
    """Stages in order: a directed acyclic graph by `after`."""

    model_config = ConfigDict(json_schema_extra=not_required("stages"))

    name: Name
    title: str | None = None
    weight: PositiveFloat = 1.0
    """Share of the requests that take this pipeline, relative to the others."""
    stages: tuple[Annotated[Stage, one_of(STAGES, "stage kind")], ...] = Field(min_length=1)
    """If a workload leaves them out: those of the library's pipeline of that name."""

    def leaves(self) -> Iterator[tuple[tuple[str | int, ...], Stage]]:
        """Key path and stage of all that work is done in: those of rounds instead of the rounds."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Repeat):
                for position, inner in enumerate(stage.stages):
                    yield ("stages", index, "stages", position), inner
            elif isinstance(stage, Rounds):
                yield from ((("stages", index), inner) for inner in stage.inside)
            else:
                yield ("stages", index), stage


def _or_name(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema of the list: an entry may be a name."""
    schema["items"] = {"anyOf": [schema["items"], {"type": "string"}]}


class WorkloadFile(Description):
    """What arrives, which stages it passes, and the objectives it is judged by."""

    model_config = ConfigDict(json_schema_extra=not_required("pipelines"))

    name: str = Field(min_length=1)
    title: str | None = None
    seed: NonNegativeInt = 1
    traffic: Traffic
    pipelines: tuple[Pipeline, ...] = Field(min_length=1, json_schema_extra=_or_name)
    """`- rag` is short for the pipeline of that name in the library, `- {name: rag, weight: 2}` gives it a weight.
    If left out: prefill, then decode."""
    slo: Slo = Slo()
    patience: Patience | None = None
    """Clients wait for ever if not given."""
    classes: tuple[ServiceClass, ...] = ()
    """All requests are alike if not given."""
    measure: Measure = Measure()

    @property
    def any_patience(self) -> bool:
        """Whether any client may hang up."""
        return self.patience is not None or any(one.patience is not None for one in self.classes)

    def promises(self) -> list[tuple[str | None, Slo]]:
        """Class (None: there are no classes) and what its requests are promised."""
        if not self.classes:
            return [(None, self.slo)]
        return [(one.name, self.slo if one.slo is None else one.slo) for one in self.classes]

    @model_validator(mode="before")
    @classmethod
    def _default_pipelines(cls, data: Any) -> Any:
        if isinstance(data, dict) and "pipelines" not in data:
            return {**data, "pipelines": DEFAULT_PIPELINES}
        return data
