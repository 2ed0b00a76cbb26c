"""A scenario as a file, and plain data as YAML that our reader reads back equal."""

from __future__ import annotations

from typing import Any

import yaml

from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.yaml_reader import plain_scalar


def dump_scenario(scenario: Scenario) -> str:
    """YAML with every name resolved and every default written out; load.read_scenario gives an equal Scenario back."""
    return dump_yaml(scenario.model_dump(mode="json", by_alias=True))


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that scenario/yaml_reader.py reads back equal."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader would not take for text, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    try:
        means_itself = plain_scalar(text) == text
    except ValueError:
        means_itself = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if means_itself else "'")


_Dumper.add_representer(str, _represent_text)
