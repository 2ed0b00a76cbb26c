"""The words of results and files, defined: `hermes-sim define TERM` and docs/glossary.md come from here."""

from __future__ import annotations

import re
import textwrap
from difflib import get_close_matches

from hermes_sim.analysis.terms import TERMS, Term, key_of
from hermes_sim.core.errors import HermesError

__all__ = ["TERMS", "Term", "define", "definition_text", "glossary_markdown"]

_BY_ALIAS = {key_of(alias): key for key, term in TERMS.items() for alias in term.aliases} | {key: key for key in TERMS}
_COLUMN = re.compile(r"(num )?(.*?)( (s|frac|j|usd|g|bytes))?")
"""Names of columns say what is counted, or the unit, around the word."""


def define(word: str) -> Term:
    """The term that a word or a column stands for, case and hyphens aside: `ttft_s` is TTFT.

    Raises HermesError with the nearest ones if there is none.
    """
    key = key_of(word)
    column = _COLUMN.fullmatch(key)
    if key not in _BY_ALIAS and column is not None and column[2] in _BY_ALIAS:
        key = column[2]
    if key not in _BY_ALIAS:
        near = get_close_matches(key, _BY_ALIAS, n=1, cutoff=0.6)
        names = ", ".join(term.name for term in TERMS.values())
        guess = f" Did you mean '{TERMS[_BY_ALIAS[near[0]]].name}'?" if near else f" Defined are: {names}."
        raise HermesError(f"no definition of '{word}'.{guess}")
    return TERMS[_BY_ALIAS[key]]


def definition_text(term: Term, width: int = 80) -> str:
    """A definition for the terminal."""
    lines = textwrap.wrap(term.definition, width - 2, initial_indent="  ", subsequent_indent="  ")
    see = textwrap.wrap(f"  see also: {', '.join(term.see)}", width, subsequent_indent="    ") if term.see else []
    return "\n".join([term.name, *lines, *see])


def glossary_markdown() -> str:
    """The page docs/glossary.md."""
    lines = [
        "# Glossary",
        "",
        "What the words of results, files and screens mean here; `hermes-sim define TERM` shows one of them.",
        "Generated from `hermes_sim/analysis/glossary.py`.",
    ]
    for term in sorted(TERMS.values(), key=lambda term: term.name.lower()):
        lines += ["", f"## {term.name}", "", *textwrap.wrap(term.definition, 120)]
        if term.see:
            lines += ["", f"See also: {', '.join(f'[{name}](#{_anchor(name)})' for name in term.see)}."]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
