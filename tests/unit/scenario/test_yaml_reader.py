"""YAML means what it looks like, and what cannot be meant is refused with its line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.dump import dump_yaml
from hermes_sim.scenario.yaml_reader import LARGEST_FILE_BYTES, parse_document, parse_value, read_yaml


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "f.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9),
        ("1E+9", 1e9),
        ("-3e-2", -0.03),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("+7", 7),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'12'", "12"),
        ('"no"', "no"),
        ("!!str 12", "12"),
        ("4 /s", "4 /s"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("[1, a, {b: c}]", [1, "a", {"b": "c"}]),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    assert parse_document(f"key: {text}", "f.yaml").data == {"key": value}
    assert type(parse_value(text, "--set")) is type(value)


def test_keys_are_always_text() -> None:
    assert parse_document("on: 1\n12: 2\nnull: 3\ntrue: 4", "f.yaml").data == {"on": 1, "12": 2, "null": 3, "true": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", ["f.yaml:3 a: given twice; first in line 1"]),
        (
            "a: {x: 1, x: 2}\nb: .nan",
            ["f.yaml:1 a.x: given twice; first in line 1", "f.yaml:2 b: .nan is not a finite number"],
        ),
        ("a: -.inf", ["f.yaml:1 a: -.inf is not a finite number"]),
        ("a: 1e999", ["f.yaml:1 a: 1e999 is larger than any number here"]),
        ("a: " + "9" * 5000, ["f.yaml:1 a: a number of more than 400 digits"]),
        ("a:\n\tb: 1", ["f.yaml:2: is not YAML: a tab; indent with spaces"]),
        ("a: [1,\nb: 2", ["f.yaml:3: is not YAML: did not find expected ',' or ']'"]),
        ("a: b: c", ["f.yaml:1: is not YAML: mapping values are not allowed in this context"]),
        ("- 1", ["f.yaml: holds a list: a mapping of keys is needed"]),
        ("hello", ["f.yaml: holds 'hello': a mapping of keys is needed"]),
        ("", ["f.yaml: is empty: a mapping of keys is needed"]),
        ("# only a comment\n", ["f.yaml: is empty: a mapping of keys is needed"]),
        ("a: 1\n---\nb: 2", ["f.yaml:2: a second document starts here; one per file"]),
        ("a: &x [1]\nb: *y", ["f.yaml:2 b: alias '*y' names no anchor that is complete before it"]),
        ("a: &x [*x]", ["f.yaml:1 a[0]: alias '*x' names no anchor that is complete before it"]),
        ("<<: 3", ["f.yaml:1 <<: merges mappings, got 3"]),
        (
            "a: !!python/name:os.system x",
            ["f.yaml:1 a: tag 'tag:yaml.org,2002:python/name:os.system' is not used here"],
        ),
        ("? [a]\n: b", ["f.yaml:1: a key must be a word, not a list, mapping or alias"]),
        ("a: " + "[" * 100_000, ["f.yaml:1 a[0]: nested more than 64 deep"]),
        ("a: \x00", ["f.yaml:1: is not YAML text: unacceptable character #x0000: control characters are not allowed"]),
    ],
)
def test_refused_with_the_line(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_anchors_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\nd: {<<: [*b, {z: 1, x: 9}]}\ne: *b\n"
    document = parse_document(text, "f.yaml")
    assert document.data["c"] == {"x": 1, "y": 3}
    assert document.data["d"] == {"x": 1, "y": 2, "z": 1}
    assert document.data["e"] == document.data["base"]
    assert document.data["e"] is not document.data["base"]
    assert document.origin(("c", "x")).line == 3
    assert document.origin(("e", "x")).line == 6


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    assert problems("\n".join(lines)) == ["f.yaml:6 a5[0]: more than 200,000 values, aliases expanded"]


def test_lines_of_keys_entries_and_values() -> None:
    document = parse_document("a:\n  - x: 1\n    y:\n      z: 2\n  - {x: 3}\n", "f.yaml")
    lines = [document.origin(path).line for path in [("a",), ("a", 0, "x"), ("a", 0, "y", "z"), ("a", 1, "x"), ()]]
    assert lines == [1, 2, 4, 5, 1]
    assert document.origin(("a", 1, "missing", "deep")).line == 5


def test_files(tmp_path: Path) -> None:
    with_mark = tmp_path / "mark.yaml"
    with_mark.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\n")
    assert read_yaml(with_mark).data == {"a": "é"}
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: is not UTF-8 text"):
        read_yaml(latin)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than 4,000,000 bytes"):
        read_yaml(large)


PRINTABLE = st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTABLE)
    | st.sampled_from(["no", "1e9", "12:30", ".nan", "<<", "0x1f", "~", "010", "- a", "a: b", "#", "2024-01-01"])
)
DATA = st.dictionaries(
    st.text(PRINTABLE, min_size=1),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(PRINTABLE, min_size=1), inner)),
    min_size=1,
)


@settings(max_examples=30)
@given(DATA)
def test_what_is_dumped_reads_back_equal(data: dict[str, Any]) -> None:
    assert parse_document(dump_yaml(data), "f.yaml").data == data


@given(st.text() | st.text(alphabet="ab:-[]{}&*!<>|'\"#%@? \n\t"))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(parse_document(text, "f.yaml").data, dict)
