"""Conditions: what they mean, and that nothing of Python beyond them is reached."""

from __future__ import annotations

import re

import pytest

from hermes_sim.scenario.expression import Value, parse_expression

VALUES: dict[str, Value] = {"tp": 4, "pp": 2, "rate": 0.5, "model": "llama_3_8b", "on": True, "cluster.x[0].y": 8}


def lookup(name: str) -> Value:
    return VALUES[name]


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("tp * pp <= 8", True),
        ("tp * pp < 8", False),
        ("1 < pp < tp", True),
        ("1 < tp < pp", False),
        ("tp ** 2 == 16 and rate < 1", True),
        ("tp % 3 == 1 or missing", True),
        ("not on", False),
        ("not (tp > 8)", True),
        ("model in ['llama_3_8b', 'llama_3_70b']", True),
        ("model not in ['llama_3_8b']", False),
        ("tp in [1, 2]", False),
        ("model == 'llama_3_70b'", False),
        ("max(tp, pp, 7) == 7 and ceil(rate) == 1 and log2(tp) == 2", True),
        ("cluster.x[0].y == tp * pp", True),
        ("-tp + 4 == 0", True),
        ("tp // 3 == 1 and on == true", True),
    ],
)
def test_what_a_condition_means(text: str, truth: bool) -> None:
    assert parse_expression(text).holds(lookup) is truth


def test_names_and_paths_in_order() -> None:
    found = parse_expression("tp * cluster.engines.llm.replicas <= min(num_devices, tp) and workload.seed == 1")
    assert found.names == ("tp", "num_devices")
    assert found.paths == ("cluster.engines.llm.replicas", "workload.seed")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tp <=", "is not an expression"),
        ("__import__('os').system('true')", "is none of what a condition is made of"),
        ("().__class__.__mro__", "is not a key"),
        ("[x for x in [1]] in [1]", "is none of"),
        ("(lambda: 1)() == 1", "is none of"),
        ("open('x') == 1", "there is no function 'open'"),
        ("floot(tp) == 1", "Did you mean 'floor'"),
        ("max(tp, key=tp) == 1", "is none of"),
        ("tp is 4", "use == or !="),
        ("tp in 4", "needs a list behind it"),
        ("tp == [4]", "only stand behind `in`"),
        ("f'{tp}' == '4'", "is none of"),
        ("1j == tp", "is not a value here"),
        ("tp & 1 == 0", "is none of"),
        ("tp == 4" + " and tp == 4" * 60, "longer than 500"),
        ("(" * 220 + "tp" + ")" * 220, "is not an expression"),
    ],
)
def test_what_is_not_of_the_language(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tp", "not a condition"),
        ("tp and pp", "not a condition"),
        ("model < 4", "which is no number"),
        ("model == 4", "never equal"),
        ("model + 1 == 2", "not a number"),
        ("tp / 0 == 1", "divides by 0"),
        ("tp ** 1000 > 1", "too large"),
        ("(-tp) ** 0.5 > 1", "no real number"),
        ("log2(pp - 2) == 1", "log2(pp - 2) has no value"),
    ],
)
def test_what_cannot_be_worked_out(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_expression(text).holds(lookup)
