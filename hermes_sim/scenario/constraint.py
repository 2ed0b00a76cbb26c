"""What the points of a grid must fulfil to be run."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from hermes_sim.core.schema import Description
from hermes_sim.scenario.expression import Expression, parse_expression


def _or_text(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema: `tp <= 8` is short for `{require: tp <= 8}`."""
    mapping = dict(schema)
    schema.clear()
    schema |= {"anyOf": [mapping, {"type": "string"}]}


class Constraint(Description):
    """A condition on a point: axes by name, facts such as `num_devices`, keys such as `cluster.engines.llm.replicas`.

    `tp * replicas <= 8` alone is short for `{require: tp * replicas <= 8}`. Axes of numbers are the numbers as written,
    others text in quotes; keys are in base units. A condition on an axis that a point does not have (`when`) holds.
    """

    model_config = ConfigDict(json_schema_extra=_or_text)

    require: str = Field(min_length=1)
    because: str | None = None
    """In words, for those who read what was left out."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"require": data} if isinstance(data, str) else data

    @field_validator("require")
    @classmethod
    def _is_of_the_language(cls, text: str) -> str:
        return _parsed(text).text

    @property
    def expression(self) -> Expression:
        return _parsed(self.require)

    @property
    def words(self) -> str:
        """The condition, and why."""
        return f"{self.require} ({self.because})" if self.because else self.require


@lru_cache(maxsize=256)
def _parsed(text: str) -> Expression:
    return parse_expression(text)
