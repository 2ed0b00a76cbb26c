"""Policies of a user's own: registered by a module, named by a file, loaded on request only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from hermes_sim import PythonBatching, PythonRouting, load_plugin, plugins, register_batching, register_routing
from hermes_sim.batching import TOKEN_POLICIES, Switches, TokenBatching
from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.routing import ROUTERS
from hermes_sim.routing.python_routing import Candidate, RoutingView
from hermes_sim.scenario.check import check_file
from hermes_sim.scenario.describe import definition, json_schema, list_names, show
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.reference import reference_markdown
from tests import scenarios as s

REPOSITORY = Path(__file__).resolve().parents[2]

MODULE = '''\
"""Two policies."""
from hermes_sim import PythonBatching, PythonRouting, register_batching, register_routing

class OneByOne(PythonBatching):
    """One sequence at a time."""

    def __init__(self, most_tokens: int = 512):
        self.most_tokens = most_tokens

    def schedule(self, view):
        first = next(iter([*view.running, *view.waiting]))
        return [(first.row, min(first.num_to_do, self.most_tokens))]

class Second(PythonRouting):
    """The last engine of the list."""

    def choose(self, view):
        return view.candidates[-1]

register_batching("one_by_one", OneByOne)
register_routing("second", Second)
'''


class Nothing(PythonBatching):
    """Schedules nothing."""

    def __init__(self, patience_s: float, places: int = 2) -> None:
        self.patience_s = patience_s

    def schedule(self, view: Any) -> list[tuple[int, int]]:
        return []


class First(PythonRouting):
    """The first engine."""

    def choose(self, view: RoutingView) -> Candidate:
        return view.candidates[0]


@pytest.fixture
def own_tables() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(TOKEN_POLICIES), set(ROUTERS)
    yield
    TOKEN_POLICIES.clear()
    TOKEN_POLICIES.update(before[0])
    for kind in set(ROUTERS) - before[1]:
        del ROUTERS[kind]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a package of policies and a cluster that names them."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "policies.py").write_text(MODULE)
    cluster = s.cluster(s.llm(replicas=2, batching={"kind": "one_by_one"}), routing={"kind": "second"})
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    (tmp_path / "workload.yaml").write_text(yaml.safe_dump(s.workload(traffic=s.traffic(num_requests=5))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hermes_sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "hermes_sim", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plugin_through_the_command(package: Path) -> None:
    listed = hermes_sim("--plugin", "my_package.policies", "list", "policies").stdout
    assert "one_by_one                  batching: One sequence at a time.\n" in listed
    assert "second                      routing: The last engine of the list.\n" in listed
    assert hermes_sim("--plugin", "my_package.policies", "check", "cluster.yaml").returncode == 0


def test_without_the_plugin_its_names_are_unknown(package: Path) -> None:
    done = hermes_sim("check", "cluster.yaml")
    assert done.returncode == 2
    assert "engines[0].batching.kind  'one_by_one' is not a batching policy (" in done.stderr
    assert "routing.kind" in done.stderr
    assert "'second' is not a routing policy (" in done.stderr


@pytest.mark.parametrize("kind", ["my_package.policies", "my_package.policies:OneByOne", "my_package/policies.py"])
def test_a_file_alone_never_imports_code(package: Path, kind: str) -> None:
    (package / "my_package" / "policies.py").write_text("raise SystemExit('imported')")
    cluster = s.cluster(s.llm(batching={"kind": kind}), routing={"kind": kind})
    (package / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    done = hermes_sim("--cluster", "cluster.yaml", "--workload", "workload.yaml")
    assert done.returncode == 2
    assert "is not a batching policy" in done.stderr
    assert "imported" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--plugin my_plugin: there is no such module here."),
        ("import numpyy", "--plugin my_plugin: needs the module 'numpyy', which is not installed"),
        ("1 / 0", "--plugin my_plugin: importing it failed: ZeroDivisionError: division by zero"),
        (
            "from hermes_sim import register_batching\nregister_batching('static', int)",
            "--plugin my_plugin: 'static' is a policy of hermes-sim itself: register yours under another name",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    if text is not None:
        (tmp_path / "my_plugin.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_plugin("my_plugin")
    assert str(caught.value) == message


def test_an_installed_package_names_its_module(
    package: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None
) -> None:
    def installed(*, group: str) -> list[EntryPoint]:
        assert group == "hermes_sim.plugins"
        return [EntryPoint("queueing", "my_package.policies", group)]

    monkeypatch.setattr(plugins, "entry_points", installed)
    monkeypatch.syspath_prepend(package)
    with pytest.raises(ConfigError, match=r"installed plug-ins: queueing\. Did you mean 'queueing'\?"):
        load_plugin("queuing")
    assert "one_by_one" not in TOKEN_POLICIES
    load_plugin("queueing")
    assert "one_by_one" in TOKEN_POLICIES
    sys.modules.pop("my_package.policies")


def test_registered_names_are_known_from_then_on(own_tables: None) -> None:
    """By the checks, the lists, the schema, the reference."""
    cluster = s.cluster(
        s.llm(batching={"kind": "nothing", "max_num_seqs": 8, "options": {"patience_s": 2.0}}),
        routing={"kind": "first"},
    )
    with pytest.raises(ConfigError, match="'nothing' is not a batching policy"):
        load_scenario(cluster, s.workload())
    register_batching("nothing", Nothing)
    register_routing("first", First)
    scenario = load_scenario(cluster, s.workload())
    batching = scenario.cluster.engines[0].batching
    assert isinstance(batching, TOKEN_POLICIES["nothing"])
    policy = batching.make()  # type: ignore[attr-defined]
    assert (type(policy), policy.patience_s, batching.max_num_seqs) == (Nothing, 2.0, 8)
    assert scenario.cluster.routing.router().in_python
    titles = {name: title for name, title, _ in list_names("policies")}
    assert (titles["nothing"], titles["first"]) == ("batching: Schedules nothing.", "routing: The first engine.")
    assert "options: {}" in show("policy", "nothing")
    assert definition("first") == "routing: The first engine. (hermes-sim show policy/first)"
    schema = json_schema("cluster")["$defs"]
    assert {"$ref": "#/$defs/Nothing"} in schema["Engine"]["properties"]["batching"]["oneOf"]
    assert schema["Nothing"]["properties"]["kind"]["const"] == "nothing"
    assert schema["RoutingConfig"]["properties"]["kind"]["enum"][-1] == "first"
    assert "[nothing](#batching-policy-nothing)" in reference_markdown()


def test_a_policy_with_switches_joins_as_well(own_tables: None) -> None:
    class Greedy(TokenBatching):
        """Everything at once."""

        kind: str = "greedy"

        def switches(self) -> Switches:
            return Switches(mix=True)

    register_batching("greedy", Greedy)
    assert load_scenario(s.cluster(s.llm(batching={"kind": "greedy"})), s.workload())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "engines[0].batching.options: Nothing needs the option 'patience_s'"),
        (
            {"patience_s": 1, "place": 3},
            "engines[0].batching.options.place: unknown option: Nothing takes patience_s, places. "
            "Did you mean 'places'?",
        ),
        ({"patience_s": [1]}, "engines[0].batching.options.patience_s: "),
    ],
)
def test_options_are_those_of_the_class(own_tables: None, options: dict[str, Any], problem: str) -> None:
    register_batching("nothing", Nothing)
    with pytest.raises(ConfigError) as caught:
        load_scenario(s.cluster(s.llm(batching={"kind": "nothing", "options": options})), s.workload())
    assert str(caught.value.problems[0]).startswith(f"cluster {problem}")


def test_options_of_a_router(own_tables: None) -> None:
    register_routing("first", First)
    for kind, problem in (
        ("first", "cluster routing.options.speed: unknown option: First takes none."),
        ("random", "cluster routing.options: 'random' takes its options as keys beside `kind`"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_scenario(s.cluster(s.llm(), routing={"kind": kind, "options": {"speed": 1}}), s.workload())
        assert str(caught.value) == problem


@pytest.mark.parametrize("keys", [{"parallel": {"dp": 2}, "placement": {"gpu": 2}}, {"async": True}, {"drafts": True}])
def test_what_a_policy_in_python_is_not_asked_about(own_tables: None, keys: dict[str, Any]) -> None:
    register_batching("nothing", Nothing)
    batching: dict[str, Any] = {"kind": "nothing", "options": {"patience_s": 1}}
    if keys.pop("async", False):
        batching["async_scheduling"] = True
    if keys.pop("drafts", False):
        acceptance = {"kind": "constant", "rate": 0.5}
        keys = {"speculative": {"num_draft_tokens": 2, "acceptance": acceptance, "draft": {"kind": "ngram"}}}
    with pytest.raises(ConfigError, match="a policy in Python decides one step at a time, when the last one has ended"):
        load_scenario(s.cluster(s.llm(batching=batching, **keys)), s.workload())


def test_registering_again_replaces(own_tables: None) -> None:
    """As a notebook does that runs a cell twice."""
    register_batching("nothing", Nothing)
    before = TOKEN_POLICIES["nothing"]
    register_batching("nothing", Nothing)
    assert TOKEN_POLICIES["nothing"] is not before
    register_routing("first", First)
    register_routing("first", First)
    assert ROUTERS["first"] is First


@pytest.mark.parametrize(
    ("register", "name", "policy", "message"),
    [
        (register_batching, "chunked_prefill", Nothing, "'chunked_prefill' is a policy of hermes-sim itself"),
        (register_routing, "random", First, "'random' is a policy of hermes-sim itself"),
        (register_batching, "python", Nothing, "'python' is a policy of hermes-sim itself"),
        (register_batching, "no name", Nothing, "'no name' is not a name: letters, digits and _"),
        (register_batching, "mine", First, "needs a class derived from PythonBatching or TokenBatching"),
        (register_batching, "mine", Nothing(1.0), "needs a class derived from PythonBatching or TokenBatching"),
        (register_routing, "mine", Nothing, "needs a class derived from PythonRouting"),
    ],
)
def test_what_cannot_be_registered(register: Any, name: str, policy: Any, message: str) -> None:
    with pytest.raises(HermesError, match=message):
        register(name, policy)


def test_check_file_knows_what_is_registered(package: Path, own_tables: None) -> None:
    assert len(check_file("cluster.yaml")) == 2
    register_batching("one_by_one", Nothing)
    register_routing("second", First)
    assert [str(problem) for problem in check_file("cluster.yaml")] == [
        "cluster.yaml:2 engines[0].batching.options: Nothing needs the option 'patience_s'"
    ]
