"""docs/python-api.md: signatures as they are, every public name, an example that runs."""

from __future__ import annotations

import inspect
import typing

import pytest

import hermes_sim
from hermes_sim.explore.api_page import PAGE, refreshed
from hermes_sim.scenario.load import load_scenario
from tests.docs.blocks import blocks

FUNCTIONS = [name for name in hermes_sim.__all__ if inspect.isfunction(getattr(hermes_sim, name))]


def test_the_page_states_the_interface_as_it_is() -> None:
    """Write it anew with `python -m hermes_sim.explore.api_page`, when a change of the interface is meant."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == refreshed(page)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_and_result_has_a_type(name: str) -> None:
    signature = inspect.signature(getattr(hermes_sim, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())
    assert inspect.getdoc(getattr(hermes_sim, name))


def test_scenarios_with_other_keys_are_typed() -> None:
    signature = inspect.signature(hermes_sim.Scenario.with_)
    assert str(signature).replace("'", "") == (
        "(self, overrides: Mapping[str, Any] | Sequence[str] = (), *, seed: int | None = None) -> Scenario"
    )
    assert typing.get_type_hints(load_scenario)["return"] is hermes_sim.Scenario


def test_the_example_runs() -> None:
    (block, *_) = blocks(PAGE, "python")
    names: dict[str, object] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    faster = names["faster"]
    assert isinstance(faster, hermes_sim.Scenario)
    assert faster.devices["a100_sxm_80gb"].memory.bandwidth_bytes_per_s == pytest.approx(2 * 2039e9)
