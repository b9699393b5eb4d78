"""The project of a plugin, and what its distribution says about the task: the summary and the README."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name

from ..plugins import InstalledPlugin, Task, installed

LONG = 40
"""Characters: shorter lines of a README say little about what it describes."""
COPIED = 0.5
"""Share of the long lines of a README from which on it is the text of another one."""

_PLACEHOLDERS = {
    "which of four pieces of a picture is not mirrored": "mirrored",
    "four pieces of it, of which three are mirrored": "mirrored",
    "whether the camera turned left or right between": "turn",
    "which of two pictures of a clip was taken earlier": "earlier",
    "which of the two was taken earlier": "earlier",
}
"""What ``ssrl new`` writes about its tasks, in summary and README; and a word of their prompts."""

_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`|^ {4}.*?$", re.MULTILINE | re.DOTALL)
_PICTURES = re.compile(
    r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)|^ {0,3}\[[^\]]+\]:\s*(\S+)", re.M
)


class Described(NamedTuple):
    """The summary of a distribution, and its README, the long description."""

    summary: str
    readme: str


def project_of(plugin: InstalledPlugin) -> Path | None:
    """The folder with the ``pyproject.toml`` of a plugin that is imported from its source; else None."""
    spec = find_spec(plugin.entry_point.module.partition(".")[0])
    for folder in Path(spec.origin).parents[:4] if spec and spec.origin else ():
        if (folder / "pyproject.toml").is_file():
            same = canonicalize_name(_project(folder).get("name", "")) == canonicalize_name(plugin.distribution)
            return folder if same else None
    return None


def described(plugin: InstalledPlugin) -> Described:
    """What the distribution says: in the project if there is one, since an edit does not change installed metadata."""
    told, distribution = Described("", ""), plugin.entry_point.dist
    if distribution is not None:
        facts = distribution.metadata
        told = Described(facts["Summary"] or "", facts["Description"] or "")
    if (folder := project_of(plugin)) is None:
        return told
    project = _project(folder)
    readme = project.get("readme")
    file = folder / str(readme.get("file") if isinstance(readme, dict) else readme)
    return Described(
        project.get("description", told.summary), file.read_text(encoding="utf-8") if file.is_file() else told.readme
    )


def _project(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    return facts


def faults_of(task: Task, prompt: Callable[[], str]) -> Iterator[str]:
    """What is wrong with the description of a task.

    Args:
        prompt: returns one of the task; called only if its text matters.
    """
    told, tasks = described(task.plugin), installed()
    others = {plugin.distribution: plugin for plugins in tasks.values() for plugin in plugins}
    others.pop(task.plugin.distribution, None)
    if not told.summary or not task.info.summary or not told.readme:
        names = "description in pyproject.toml", "TaskInfo.summary", "readme in pyproject.toml"
        given = zip(names, (told.summary, task.info.summary, told.readme), strict=True)
        yield " and ".join(name for name, text in given if not text) + " is empty"
    if told.readme and not _names(told.readme, task.name):
        named = [name for name in tasks if name != task.name and _names(told.readme, name)]
        yield f"the README does not name {task.name!r}" + (f", but {', '.join(named)}" if named else "")
    for name, plugin in others.items():
        other = described(plugin)
        own, theirs = _long_lines(told.readme), _long_lines(other.readme)
        if own and len(own & theirs) >= COPIED * len(own):
            yield f"{len(own & theirs)} of {len(own)} long lines of the README are those of {name}"
        for where, text in (("the summary of the distribution", told.summary), ("TaskInfo.summary", task.info.summary)):
            if _words(text) and _words(text) == _words(other.summary):
                yield f"{where} is that of {name}"
    texts = " ".join(" ".join((*told, task.info.summary)).split())
    left = [word for text, word in _PLACEHOLDERS.items() if text in texts]
    if left and left[0] not in prompt():
        yield "a text of `ssrl new` still describes its own task"
    if relative := relative_pictures(told.readme):
        yield f"the README shows {relative[0]!r}, which an index of packages does not have"


def relative_pictures(readme: str) -> list[str]:
    """The addresses of pictures in a README of Markdown that lead to no host."""
    found = (next(filter(None, groups)) for groups in _PICTURES.findall(_CODE.sub("", readme)))
    pictures = (address for address in found if re.search(r"\.(png|jpe?g|gif|svg|webp)\b", address, re.IGNORECASE))
    return [address for address in pictures if not re.match(r"(https?:)?//|data:", address)]


def _names(text: str, task: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(task)}(?![\w-])", text) is not None


def _words(summary: str) -> str:
    """A summary without what begins that of most plugins, for comparisons."""
    return " ".join(re.sub(r"^.*?ssrl-core:", "", summary).casefold().split())


def _long_lines(text: str) -> set[str]:
    """The long lines of a README, without those that ``ssrl new`` writes into every one."""
    lines = {line.strip() for line in text.splitlines()}
    template = (Path(__file__).parents[1] / "template/project/README.md.jinja").read_text(encoding="utf-8")
    return {line for line in lines if len(line) >= LONG} - {line.strip() for line in template.splitlines()}
