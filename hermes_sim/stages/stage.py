"""What every stage states: its place in the pipeline and the work of its visits. A stage knows no time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from hermes_sim.core.schema import Description, Fraction
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.operator import Operator
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Models = Mapping[str, ModelArchitecture]
"""Architectures by the names that the input files use."""


NetworkKind = Literal["encoder", "diffusion_model"]
"""Kinds of library files with networks that are no language models."""


def _one_or_several(value: Any) -> Any:
    """`route.small` is short for a list of one."""
    return (value,) if isinstance(value, str) else value


Outcome = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*\.[A-Za-z][A-Za-z0-9_-]*$")]
"""`stage.outcome` of a route."""


class Stage(Description):
    """One stage of a pipeline.

    A job stage overrides `units` and `work`; the work of token stages follows from the step that their engine runs.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]]
    """tokens: a token engine, step by step, with KV blocks; jobs: whole jobs in batches; nowhere: in no engine."""

    NETWORKS: ClassVar[Mapping[str, NetworkKind]] = {}
    """Keys that hold a network or the name of a library file with one, and the kind of that file."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    after: tuple[str, ...] = ()
    """Stages that must have ended."""
    probability: Fraction = 1.0
    """Chance that a request passes through; otherwise the stage takes no time."""
    when: Annotated[tuple[Outcome, ...], BeforeValidator(_one_or_several)] = ()
    """Outcomes of routes before it (`route.small`), one of which a request must have had to pass through; any if not
    given."""

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        """Units of work of each request: tokens, queries ...; the stage says which. [num_requests], as the result."""
        return np.zeros(len(num_prompt_tokens))

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        """[num_requests] units of work, where they depend on more than the prompt; of a visit that is passed."""
        return self.units(requests.num_prompt_tokens)

    def most_units(self, requests: RequestTable, seed: int) -> float:
        """Units of the largest job."""
        return float(self.units(np.array([requests.num_prompt_tokens.max(initial=1)], np.int64))[0])

    def units_per_sequence(self, requests: RequestTable, seed: int) -> float | None:
        """What `work` is told of a job, where that is not the mean of its units."""
        return None

    def wanted_by(self, requests: RequestTable, seed: int) -> npt.NDArray[np.bool_] | None:
        """[num_requests] whether there is anything to do; the others pass over the stage. None: all of them."""
        return None

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        """Operators of one batch that holds `total_units` units in jobs of `units_per_job` each."""
        return ()

    def one_pass(self, models: Models) -> tuple[Operator, ...]:
        """Operators of one pass through every network of the stage: their products have its weights, each once."""
        return self.work(1.0, 1.0, models)

    def service_times_s(self, num_requests: int, seed: int, round: int = 0) -> FloatArray | None:
        """Times that the stage itself states, [num_requests] in this round; None where the work decides."""
        return None

    def added_prompt_tokens(self) -> int:
        """Tokens that the stage adds to the prompt of a request that passes through."""
        return 0

    def model_names(self) -> tuple[str, ...]:
        """Models that the stage runs, as the file names them."""
        return ()

    def resident_bytes(self, models: Models) -> float:
        """Memory that an engine serving the stage keeps: weights, indexes."""
        return 0.0
