"""What was changed between two scenarios, key by key: `cluster.engines.llm.batching.max_num_seqs: 256 -> 64`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hermes_sim.scenario.scenario import Scenario

NONE: Final = "-"
TABLES: Final = ("devices", "links", "models")
"""Sections of many numbers each, told by name rather than number."""
MOST_IN_TABLE: Final = 3
MOST_IN_ITEM: Final = 12
"""More changes of one device, or of one engine, are counted, not listed."""
LONGEST_VALUE: Final = 40
LEFT_OUT: Final = frozenset({"title", "notes", "sources", "source"})
"""Words about a thing, which change nothing."""
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?(?=$| |/)")

Path = tuple[str, ...]
Missing = object()
NOTHING: Final = (None, Missing)


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the resolved scenario; `-` stands where it is not there."""

    key: str
    old: str
    new: str


def scenario_changes(first: Scenario, second: Scenario) -> list[Change]:
    """Every key in which the second differs, in the order of the files.

    Lists of named things (engines, nodes, stages) are compared by name. What differs in more than a few numbers of
    one device, link or model, or in many of one engine, is one line; of things of another kind the keys that both kinds
    have are compared. Titles and sources are left out.
    """
    old, new = (one.model_dump(mode="json", by_alias=True) for one in (first, second))
    return [change for key in old for change in _changes((key,), old[key], new[key]) if key not in LEFT_OUT]


def _changes(path: Path, old: Any, new: Any) -> list[Change]:
    if old == new or (old in NOTHING and new in NOTHING):
        return []
    olds, news = _parts(old), _parts(new)
    if olds is None or news is None:
        return [Change(".".join(path), value_words(old), value_words(new))]
    keys = [key for key in dict.fromkeys((*olds, *news)) if key not in LEFT_OUT]
    if "kind" in keys and olds.get("kind") != news.get("kind"):  # the other keys are those of the kind
        keys = [key for key in keys if key in olds and key in news]
    if path[0] in TABLES and len(path) == 1:
        return list(_table_changes(path[0], olds, news))
    found = [
        change for key in keys for change in _changes((*path, key), olds.get(key, Missing), news.get(key, Missing))
    ]
    if len(path) == 3 and len(found) > MOST_IN_ITEM:
        return [Change(".".join(path), f"{len(found)} values differ", "")]
    return found


def _table_changes(section: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> Iterator[Change]:
    gone, come = ([name for name in one if name not in other] for one, other in ((olds, news), (news, olds)))
    if gone or come:
        yield Change(section, ", ".join(gone) or NONE, ", ".join(come) or NONE)
    for name in olds:
        if name in news:
            found = _changes((section, name), olds[name], news[name])
            few = len(found) <= MOST_IN_TABLE
            yield from found if few else [Change(f"{section}.{name}", f"{len(found)} values differ", "")]


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What a value is made of, by key or by name; None of one that is whole."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Mapping) for one in value):
        names = [str(one.get("name", index)) for index, one in enumerate(value)]
        if value and len(set(names)) == len(names):
            return dict(zip(names, value, strict=True))
    return None


def value_words(value: Any) -> str:
    """A value in a few words: numbers without needless digits, of a thing with parts its name or kind."""
    if value in NOTHING:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        named = value.get("name") or value.get("kind")
        words = str(named) if named else ", ".join(f"{key} {value_words(one)}" for key, one in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        words = ", ".join(map(value_words, value)) or NONE
    else:
        words = _NUMBER.sub(lambda found: f"{float(found[0]):.6g}", str(value), count=1)
    return words if len(words) <= LONGEST_VALUE else f"{words[: LONGEST_VALUE - 3]}..."
