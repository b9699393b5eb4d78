"""Patterns of file names, whose ``*`` is the id of an image, and names that are times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SAME_TIME = 0.02
"""Seconds between colour, depth and pose of one frame, as in TUM's own tools."""


@dataclass(frozen=True)
class Pattern:
    """A relative path that may contain ``*``, and may begin with ``**/``."""

    text: str

    def __str__(self) -> str:
        return self.text

    @cached_property
    def _parts(self) -> tuple[str, str, re.Pattern[str]]:
        text = self.text.removeprefix("./")
        rest = text.removeprefix("**/")
        folder, name = ("((?:.*/)?)", "([^/]+)") if rest != text else ("", "(.+)")
        return text[: -len(rest)], rest, re.compile(folder + re.escape(rest).replace(r"\*", name), re.DOTALL)

    def match(self, path: str) -> str | None:
        """The id that a relative path has, or None if the path does not match."""
        found = self._parts[2].fullmatch(path)
        return found and "".join(found.groups())

    def path(self, image_id: str) -> str:
        """The relative path for an id."""
        deep, rest, _ = self._parts
        head, slash, name = image_id.rpartition("/") if deep else ("", "", image_id)
        return head + slash + rest.replace("*", name)


def seconds(name: str) -> Any:
    """The time that the last part of an id gives, a float, or None."""
    try:
        return float(name.rpartition("/")[2])
    except ValueError:
        return None
