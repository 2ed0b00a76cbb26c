"""Configurations and shares as they are written on the command line."""

from __future__ import annotations

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import shown
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.yaml_reader import parse_value

FILES = ("cluster", "workload")


def axis_of(text: str) -> Axis:
    """From 'cluster.engines.llm.replicas=1,2,4' or 'cluster=a100x8,h100x8'. Raises ConfigError."""
    key, equals, listed = text.partition("=")
    key, words = key.strip(), [word.strip() for word in listed.split(",") if word.strip()]
    origin = f"--vary {text}"
    if not equals or not key or not words:
        message = "needs KEY=VALUE,VALUE,... with a key such as cluster.engines.llm.replicas, or cluster=NAME,NAME"
        raise ConfigError([Problem(origin, None, "", message)])
    name = key.rpartition(".")[2].replace("[", "_").replace("]", "")
    values: list[dict[str, object]]
    if key in FILES:
        values = [{"name": word, key: word} for word in words]
    else:
        values = [{"name": word, "set": {key: parse_value(word, origin)}} for word in words]
    return Axis.model_validate({"name": name, "values": values})


def share_of(text: str, option: str) -> float:
    """From '99%' or '0.99'. Raises ConfigError."""
    word = text.strip()
    try:
        return float(word[:-1]) / 100.0 if word.endswith("%") else float(word)
    except ValueError:
        message = f"needs a share such as 2% or 0.02, got {shown(text)}"
        raise ConfigError([Problem(option, None, "", message)]) from None
