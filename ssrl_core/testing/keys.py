"""Names of the files in the kit's cache: digests of everything that the content depends on.

The rows of samples depend on the plan, on the images behind the source, on the code that makes samples and rows, and on
what is installed. They hold no prompts, so an edit of a prompt or of a verifier changes no name; see ``reached`` for
the code that counts.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ..plugins import SOURCES, Task, find
from ..resume import MAX_LISTED
from ..sources import open_source
from ..sources.scenes import collection
from .reached import NotFollowed, Reference, code_digest
from .samples import Plan

_KIT = (("ssrl_core.testing.samples", ""), ("ssrl_core.options", ""))


class Keys:
    """The names for the samples of one task from one source."""

    def __init__(self, task: Task, uri: str) -> None:
        self._task, self._uri = task, uri
        self._source = collection(task.info, open_source(uri))
        self._images = self._source.digest() if hasattr(self._source, "digest") else ""
        self._code = self._code_now()

    @property
    def unchanged(self) -> bool:
        """Whether the code is still that of the names; the author may have edited it meanwhile."""
        return self._code == self._code_now()

    @property
    def images(self) -> str:
        """The name for images of a source that makes them on demand; empty for others, which are quick to read."""
        if not self._on_demand:
            return ""
        return _digest("images", self._uri, self._source_code(), self._task.info.needs_depth, *_environment())

    def rows(self, plan: Plan) -> str:
        """The name for rows of a plan, besides their indices; empty if it cannot be told what they depend on."""
        if self._code is None or not (self._images or self._on_demand):
            return ""
        info = self._task.info
        answers = info.levels[plan.level].answers  # the features of a row depend on them
        facts = info.version, info.takes, info.needs_depth, answers, self._images, len(self._source)
        return _digest("rows", replace(plan, images=""), facts, self._code, *_environment())

    @property
    def _on_demand(self) -> bool:
        return not self._images and len(self._source) > MAX_LISTED

    def _code_now(self) -> str | None:
        entry, options = self._task.plugin.entry_point, self._task.info.options
        roots: list[Reference] = [(entry.module, (entry.attr or "ssrl_generate_sample").partition(".")[0])]
        if options is not None:
            roots.append((options.__module__, options.__qualname__.partition(".")[0]))
        try:
            return code_digest(roots, trusted={"ssrl_core"}) + self._source_code()
        except NotFollowed:
            return None

    def _source_code(self) -> str:
        module = find(self._uri.partition(":")[0], group=SOURCES).entry_point.module
        return code_digest([*_KIT, (module, "")], trusted={"ssrl_core", module.partition(".")[0]})


def _environment() -> Iterator[object]:
    """Versions of Python and the machine, and of all installed distributions with the times of their installation."""
    yield from (platform.python_version(), platform.platform())
    for folder in sorted({path or "." for path in sys.path}):
        with suppress(OSError), os.scandir(folder) as entries:
            yield sorted(
                (e.name, e.stat().st_mtime_ns) for e in entries if e.name.endswith((".dist-info", ".egg-info"))
            )


def _digest(*facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
