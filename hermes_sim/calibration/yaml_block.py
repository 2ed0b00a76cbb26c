"""One block of a library file: found by its key, replaced; the rest of the file keeps every character."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.schema import Description
from hermes_sim.core.whole_file import write_whole

D = TypeVar("D", bound=Description)


def read_alone(schema: type[D], path: Path) -> D:
    """What a file describes, without the files that the library puts beside it."""
    return schema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class YamlBlock:
    """A key of a file's outermost mapping with all that is indented under it."""

    key: str
    short_form: str = ""
    """One word that may stand for the whole block."""

    def pattern(self) -> re.Pattern[str]:
        """The lines of the block."""
        short = rf"(?: {self.short_form})?" if self.short_form else ""
        return re.compile(rf"^{self.key}:{short}\n(?:[ \t]+.*\n|\n)*", re.MULTILINE)

    def replace(self, path: Path, rendered: str) -> None:
        """Write the block into the file. Raises ConfigError where the file has none."""
        text, count = self.pattern().subn(lambda _: rendered, path.read_text(encoding="utf-8"), count=1)
        if count == 0:
            short = f", or '{self.key}: {self.short_form}'" if self.short_form else ""
            message = f"no such block to put numbers into: needs '{self.key}:' and indented lines under it{short}"
            raise ConfigError([Problem(str(path), None, self.key, message)])
        write_whole(path, text)
