"""The lines that a service adds to shared files: applies and reverts additions.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

_ADDITIONS = Path(__file__).with_name("additions.yaml")


class Unplaced(ValueError):
    """A shared file does not contain an expected line. The message names the file and the line."""


@dataclass(frozen=True)
class Addition:
    """Lines to add to a file, before or after each line that begins with `anchor`, or at its end without an anchor."""

    file: str
    text: str
    anchor: str = ""
    after: bool = False

    def added_to(self, content: str) -> str:
        """Return the file's content with the lines added. Raises Unplaced if no line matches the anchor."""
        if not self.anchor:
            return content + self.text
        lines = content.splitlines(keepends=True)
        if not any(line.startswith(self.anchor) for line in lines):
            raise Unplaced(f"{self.file} has no line that begins with `{self.anchor}`, where the service is listed")
        return "".join(part for line in lines for part in self._beside(line))

    def _beside(self, line: str) -> Iterator[str]:
        if line.startswith(self.anchor):
            yield from (line, self.text) if self.after else (self.text, line)
        else:
            yield line

    def taken_from(self, content: str) -> str:
        """Return the file's content with the lines removed. Raises Unplaced if they are missing."""
        if self.text not in content:
            raise Unplaced(f"{self.file}: take out by hand what begins with `{self.text.splitlines()[0].strip()}`")
        return content.replace(self.text, "")


def additions(names: Mapping[str, Any]) -> list[Addition]:
    """Return the additions for the service that the template's variables describe."""
    template = jinja2.Template(_ADDITIONS.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return [
        Addition(item["file"], item["text"], item.get("before") or item.get("after") or "", after="after" in item)
        for item in yaml.safe_load(template.render(names))
    ]
