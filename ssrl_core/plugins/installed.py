"""The plugins that are installed and may be loaded, from the metadata of their distributions. Imports no plugin."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path

from ..errors import DuplicatePlugin, IncompatiblePlugin, NotAllowed, UnknownPlugin, did_you_mean

TASKS = "ssrl"
SOURCES = "ssrl.sources"
WRAPPERS = "ssrl.wrappers"
BENCHMARKS = "ssrl.benchmarks"
SCORERS = "ssrl.scorers"
BUILT_IN = "ssrl.built_in"
"""The group of tasks of the core that a mix gives names of its own."""
ALLOWED = "SSRL_ALLOWED_DISTRIBUTIONS"
"""Environment variable: names or patterns of the distributions whose plugins may be loaded, with commas or blanks."""

_KINDS = {TASKS: "task", SOURCES: "image source", WRAPPERS: "wrapper", BENCHMARKS: "benchmark"}
_KINDS |= {SCORERS: "scorer", BUILT_IN: "built-in task"}
_CORE = "ssrl-core"
_NO_VERSION = "(no version)"


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A plugin that need not have been imported.

    Attributes:
        name: of the entry point.
        distribution, version: of the distribution that provides it.
        requires: requirements of the distribution, e.g. ``("numpy>=2", "ssrl-core>=0.1")``.
        entry_point: to import.
    """

    name: str
    distribution: str
    version: str
    requires: tuple[str, ...]
    entry_point: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.name!r} of {self.distribution} {self.version}"


def installed(group: str = TASKS) -> dict[str, list[InstalledPlugin]]:
    """All installed plugins of a group by name, sorted; several for a name that several distributions provide."""
    found: dict[str, list[InstalledPlugin]] = {}
    for distribution in metadata.distributions():
        if entries := [entry for entry in distribution.entry_points if entry.group == group]:
            facts = distribution.metadata  # parsed on each access
            # The remains of a removed distribution have entry points but no metadata.
            name = facts["Name"] or f"(no name, in {distribution.locate_file('')})"
            version = facts["Version"] or _NO_VERSION
            requires = tuple(facts.get_all("Requires-Dist") or ())
            for entry in entries:
                plugin = InstalledPlugin(entry.name, name, version, requires, entry)
                known = found.setdefault(entry.name, [])
                if not any(_is_hidden(plugin, by=other) for other in known):
                    known.append(plugin)
    return dict(sorted(found.items()))


def _is_hidden(plugin: InstalledPlugin, *, by: InstalledPlugin) -> bool:
    """Whether an import finds another copy of the plugin's distribution: the first one on sys.path.

    Of two copies in one folder, as an interrupted upgrade leaves them, none is the first, unless they are equal.
    """
    if _canonical(plugin.distribution) != _canonical(by.distribution):
        return False
    facts = [(_folder(p), p.version, p.entry_point.value) for p in (plugin, by)]
    return facts[0][0] != facts[1][0] or facts[0] == facts[1]


def shadows(plugin: InstalledPlugin) -> Iterator[str]:
    """What is wrong with the place of a plugin that was imported: its module, or a second copy of its distribution."""
    distribution, file = plugin.entry_point.dist, getattr(sys.modules.get(plugin.entry_point.module), "__file__", None)
    if distribution is None or not file or not os.path.exists(file):
        return
    links = [link.locate() for link in distribution.files or () if link.suffix == ".pth"]  # editable installations
    texts = [Path(link).read_text(encoding="utf-8") for link in links if os.path.exists(link)]
    folders = [line for text in texts for line in text.splitlines()] or [_folder(plugin)]
    part = plugin.entry_point.module.replace(".", "/")
    places = [f"{folder}/{part}{end}" for folder in folders for end in (".py", "/__init__.py")]
    own = [place for place in places if os.path.exists(place)]
    if own and not any(os.path.samefile(file, place) for place in own):
        yield f"{file} is imported instead of its {own[0]}; remove it from the path (PYTHONPATH, working directory)"
    for other in metadata.distributions(name=plugin.distribution):
        if (other.version or _NO_VERSION) != plugin.version:
            yield f"{plugin.distribution} {other.version} in {other.locate_file('')} is installed too; uninstall one"


def _folder(plugin: InstalledPlugin) -> str:
    """The folder on sys.path where the metadata of the plugin's distribution are."""
    return os.path.realpath(str(plugin.entry_point.dist.locate_file(""))) if plugin.entry_point.dist else ""


def find(name: str, *, group: str = TASKS) -> InstalledPlugin:
    """The installed plugin of a name that may be loaded. Raises UnknownPlugin, NotAllowed or DuplicatePlugin."""
    known = installed(group)
    if name not in known:
        raise UnknownPlugin(_unknown(name, group, known))
    patterns = allowed_patterns()
    candidates = [plugin for plugin in known[name] if is_allowed(plugin, patterns)]
    if not candidates:
        check_allowed(known[name][0], patterns)
    if len(candidates) > 1:
        raise DuplicatePlugin(claimed_twice(candidates))
    return candidates[0]


def _unknown(name: str, group: str, known: Iterable[str]) -> str:
    """The message about a plugin that is not installed, with the command that installs it."""
    from .catalog import offers

    offered = {other: offer for other, offer in offers(group).items() if other not in known}
    what = f"no installed plugin provides the {_KINDS[group]} {name!r}.{did_you_mean(name, [*known, *offered])}"
    lines = [what, f"installed: {', '.join(known) or 'none'}"]
    close = [name] if name in offered else get_close_matches(name, [*known, *offered], n=1, cutoff=0.85)
    for meant in filter(offered.get, close):
        distribution, status = offered[meant]
        doubt = f" (last check: {status}; see ssrl catalog)" if status in ("failed", "vanished") else ""
        named = "it" if meant == name else repr(meant)
        lines.append(f"to install {named}: pip install {distribution}{doubt}")
    if name and not close:  # a misspelt name is not worth an installation
        prefix = "ssrl-source" if group == SOURCES else "ssrl-plugin"
        lines.append(f"to install it, if that is its name: pip install {prefix}-{name.replace('_', '-')}")
    return "\n  ".join(lines)


def claimed_twice(plugins: Sequence[InstalledPlugin]) -> str:
    """The message about several plugins of one name."""
    claims = " and ".join(f"{p.distribution} {p.version} ({p.entry_point.value})" for p in plugins)
    if len({_canonical(p.distribution) for p in plugins}) == 1:
        claims += f", all in {_folder(plugins[0])}"
    return f"{plugins[0].name!r} is claimed by {claims}. Uninstall all but one of them, or allow only one in {ALLOWED}."


def allowed_patterns() -> tuple[str, ...]:
    """The patterns of the environment: all distributions if the variable is not set, none if it is empty."""
    return tuple(filter(None, re.split(r"[\s,;'\"]+", os.environ.get(ALLOWED, "*"))))


def is_allowed(plugin: InstalledPlugin, patterns: Iterable[str]) -> bool:
    """Whether the distribution of a plugin is ssrl-core or matches a pattern, e.g. ``ssrl-plugin-*``."""
    name = _canonical(plugin.distribution)
    return name == _CORE or any(fnmatchcase(name, _canonical(pattern)) for pattern in patterns)


def check_allowed(plugin: InstalledPlugin, patterns: Iterable[str], *, where: str = ALLOWED) -> None:
    """Raise NotAllowed if no pattern matches the plugin; ``where`` names the setting of the patterns."""
    if not is_allowed(plugin, patterns):
        raise NotAllowed(
            f"plugin {plugin} may not be loaded: {where} allows only {', '.join(patterns) or 'ssrl-core'}. "
            f"If you trust it, add {_canonical(plugin.distribution)} there"
        )


def check_requirement(plugin: InstalledPlugin) -> None:
    """Raise IncompatiblePlugin if the distribution of a plugin requires another release of ssrl-core."""
    from .. import __version__

    for line in plugin.requires:
        if (specifier := _unmet(line, __version__)) is not None:
            raise IncompatiblePlugin(
                f"plugin {plugin} needs ssrl-core{specifier}, and {__version__} is installed\n  {upgrade_line(plugin)}"
            )


@cache
def _unmet(line: str, version: str) -> str | None:
    """The specifier of a requirement on ssrl-core that this version does not meet; None for any other requirement."""
    if not _canonical(line).startswith(_CORE):  # parsing takes time
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        needed = Requirement(line)
    except InvalidRequirement:
        return None
    if _canonical(needed.name) != _CORE or (needed.marker and not needed.marker.evaluate({"extra": ""})):
        return None
    return None if needed.specifier.contains(version, prereleases=True) else str(needed.specifier)


def upgrade_line(plugin: InstalledPlugin) -> str:
    """The command that upgrades core and plugin to compatible releases."""
    return f"to install compatible releases: pip install --upgrade ssrl-core {plugin.distribution}"


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
