"""Wording shared by all messages about input files: values as a file writes them, lists of options, near matches."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_VALUE = 60
_MOST_OPTIONS = 24


def shown(value: object) -> str:
    """The value as its author would recognise it, cut where long: 'text', 12, true, nothing, a list, a mapping."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def listed(options: Iterable[str]) -> str:
    """'a, b, c', cut after a screenful."""
    names = list(options)
    return ", ".join(names[:_MOST_OPTIONS]) + (", ..." if len(names) > _MOST_OPTIONS else "")


def with_article(noun: str) -> str:
    """'a device', 'an engine'."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def near_match(word: str, options: Iterable[str]) -> str | None:
    """The option that was probably meant: equal but for case and separators first, then by similarity."""
    names = list(options)
    bare = {_bare(name): name for name in reversed(names)}
    if _bare(word) in bare:
        return bare[_bare(word)]
    close = difflib.get_close_matches(word[:200], names, n=1, cutoff=0.6)
    close = close or [bare[name] for name in difflib.get_close_matches(_bare(word)[:200], bare, n=1, cutoff=0.6)]
    return close[0] if close else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """' Did you mean ...?' to append to a message, or nothing."""
    match = near_match(word, options)
    return f" Did you mean {match!r}?" if match is not None else ""


def passed_from_python(policy: object, argument: str, register: str) -> str:
    """Why a file cannot bring back the policy object that a run was made with, and what to do instead."""
    return (
        f"the policy {shown(policy)} was passed from Python, and a file runs no code: pass it again with "
        f"simulate(..., {argument}...), or {register} it in a module and load that with --plugin"
    )


def _bare(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in "-_ .")
