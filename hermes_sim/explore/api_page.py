"""docs/python-api.md: its prose stays, the signatures and members between its marks are those of the program.

`python -m hermes_sim.explore.api_page` writes them anew, and adds a section for public names that have none.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Final

import hermes_sim
from hermes_sim.scenario.json_schema import own_docs

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "python-api.md"
_BLOCK: Final = re.compile(r"<!-- (?P<name>\w+) -->\n.*?<!-- end -->\n", re.DOTALL)
_LONGEST_LINE: Final = 100


def refreshed(page: str) -> str:
    """The page with every block as the program is now, and blocks at its end for names that it does not have."""
    there = {match["name"] for match in _BLOCK.finditer(page)}
    missing = [name for name in hermes_sim.__all__ if name not in there and not name.startswith("_")]
    page = _BLOCK.sub(lambda match: block(match["name"]), page)
    return page + "".join(f"\n## {name}\n\n{block(name)}" for name in missing)


def block(name: str) -> str:
    """What the page says between the marks of a public name."""
    if name not in hermes_sim.__all__:
        return f"<!-- {name} -->\n(no longer there)\n<!-- end -->\n"
    thing = getattr(hermes_sim, name)
    home = hermes_sim._HOMES[name]
    text = _class_text(thing) if inspect.isclass(thing) else _function_text(name, thing)
    return f"<!-- {name} -->\n{text}\n`{home}`\n<!-- end -->\n"


def _function_text(name: str, function: Any) -> str:
    paragraphs = [" ".join(one.split()) for one in inspect.cleandoc(function.__doc__ or "").split("\n\n")]
    return "\n\n".join([f"```py\n{signature_text(name, function)}\n```", *paragraphs]) + "\n"


def _class_text(thing: type) -> str:
    lines = [f"{_first_paragraph(thing)}\n"]
    members = [f"| `{name}` | {words} |" for name, words in _fields(thing).items()]
    members += [_member(name, value) for name, value in _members(thing)]
    if members:
        lines.append("\n".join(["| member | |", "|---|---|", *members, ""]))
    return "\n".join(lines)


def _fields(thing: type) -> dict[str, str]:
    """Attributes that the class says something of."""
    docs = own_docs(thing)
    return {name: " ".join(words.split()).replace("|", "\\|") for name, words in docs.items() if name[0] != "_"}


def _members(thing: type) -> list[tuple[str, Any]]:
    """Public methods and properties that the class, or a base of ours, defines; an exception's are nobody's concern."""
    if issubclass(thing, Exception):
        return []
    found: dict[str, Any] = {}
    for base in reversed(thing.__mro__):
        if base.__module__.startswith("hermes_sim"):
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    return [(name, value) for name, value in found.items() if _is_documented(value)]


def _is_documented(value: Any) -> bool:
    value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    return bool(getattr(value, "__doc__", None)) and (
        inspect.isfunction(value) or isinstance(value, property) or hasattr(value, "func")
    )


def _member(name: str, value: Any) -> str:
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    words = _first_paragraph(value).replace("|", "\\|")
    if inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters.values())
        own = parameters if isinstance(value, staticmethod) else parameters[1:]
        return f"| `{name}{_plain(own)}` | {words} |"
    return f"| `{name}` | {words} |"


def _plain(parameters: list[inspect.Parameter]) -> str:
    """Parameters without their types."""
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    return str(inspect.Signature(bare))


def signature_text(name: str, function: Any) -> str:
    """`name(parameters) -> result`, a parameter a line where it is long."""
    signature = inspect.signature(function)
    parts: list[str] = []
    for parameter in signature.parameters.values():
        alone = all(one.kind is not inspect.Parameter.VAR_POSITIONAL for one in signature.parameters.values())
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parts and alone:
            parts.append("*")
        parts.append(_parameter_text(parameter))
    result = f") -> {signature.return_annotation}"
    text = f"{name}({', '.join(parts)}{result}"
    if len(text) <= _LONGEST_LINE:
        return text
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), result])


def _parameter_text(parameter: inspect.Parameter) -> str:
    kind = parameter.kind
    stars = "*" if kind is inspect.Parameter.VAR_POSITIONAL else "**" if kind is inspect.Parameter.VAR_KEYWORD else ""
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {parameter.annotation}{default}"


def _first_paragraph(thing: Any) -> str:
    documented = thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing
    return " ".join(inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
