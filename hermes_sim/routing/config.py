"""Which routing policy picks the engine of a visit, and its options."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from hermes_sim.core.schema import Description, Fraction, PositiveInt, Scalar, name_in
from hermes_sim.core.words import passed_from_python
from hermes_sim.routing.hedge import Hedge
from hermes_sim.routing.python_routing import PythonRouting, as_router
from hermes_sim.routing.router import Router
from hermes_sim.routing.table import ROUTERS


class RoutingConfig(Description):
    """Choice among the engines that serve a stage."""

    kind: Annotated[str, name_in(ROUTERS, "routing policy")] = "least_outstanding_tokens"
    heavy_threshold_tokens: PositiveInt = 2048
    """heavy_light: requests with at least so many prompt tokens are heavy."""
    light_share_frac: Fraction = 0.5
    """heavy_light: share of the engines kept for light requests (at least one each way, where there are two)."""
    choices: int = Field(default=2, ge=1)
    """power_of_two_choices: engines drawn at random, of which the least loaded is taken (Mitzenmacher, 2001)."""
    options: dict[str, Scalar] = Field(default_factory=dict)
    """Arguments of the class of a policy in Python."""

    hedge: Hedge | None = None
    """Each visit is sent once if not given."""

    @model_validator(mode="before")
    @classmethod
    def _no_objects(cls, data: Any) -> Any:
        """A policy object does not come out of a file."""
        if isinstance(data, dict) and data.get("kind") == "python":
            raise ValueError(passed_from_python(data.get("policy"), "routing=", "register_routing"))
        return data

    def router(self) -> Router:
        """The policy of one stage in one run."""
        found = ROUTERS[self.kind]
        return found if isinstance(found, Router) else as_router(found(**self.options))


class GivenRouting(RoutingConfig):
    """A policy object passed to `simulate`; a file can name it but not hold it."""

    kind: str = "python"
    policy: str
    """Class of the object."""
    _policy: PythonRouting = PrivateAttr()

    @classmethod
    def of(cls, policy: PythonRouting) -> GivenRouting:
        """The description that stands for an object."""
        given = cls(policy=f"{type(policy).__module__}.{type(policy).__qualname__}")
        given._policy = policy
        return given

    @property
    def given(self) -> PythonRouting:
        return self._policy

    def router(self) -> Router:
        return as_router(deepcopy(self._policy))
