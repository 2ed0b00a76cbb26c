"""`options` of a policy in Python against the arguments of its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import Parameter, signature

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.routing import ROUTERS, RoutingConfig
from hermes_sim.routing.config import GivenRouting
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.document import KeyPath

Finding = tuple[KeyPath, str]


def check_options(path: KeyPath, policy: type, options: Mapping[str, object]) -> Iterator[Finding]:
    """Options that the class does not take, and arguments it misses. path: of `options`."""
    parameters = signature(policy).parameters.values()
    by_name = [p for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    names = [parameter.name for parameter in by_name]
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
    for name in options:
        if name not in names and not takes_any:
            known = f"takes {listed(names)}" if names else "takes none"
            yield (*path, name), f"unknown option: {policy.__name__} {known}.{did_you_mean(name, names)}"
    for parameter in by_name:
        if parameter.default is Parameter.empty and parameter.name not in options:
            yield path, f"{policy.__name__} needs the option {parameter.name!r}"


def check_routing_options(cluster: ClusterFile) -> Iterator[Finding]:
    """Options of the routers of a cluster file."""
    configs: dict[KeyPath, RoutingConfig] = {("routing",): cluster.routing}
    configs |= {("routing_per_stage", name): config for name, config in cluster.routing_per_stage.items()}
    for path, config in configs.items():
        if isinstance(config, GivenRouting):
            continue
        policy = ROUTERS.in_python(config.kind)
        if policy is not None:
            yield from check_options((*path, "options"), policy, config.options)
        elif config.options:
            yield (*path, "options"), f"{config.kind!r} takes its options as keys beside `kind`"
