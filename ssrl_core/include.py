"""A mix file with the mixes that it includes, as one mapping that knows which file wrote each key.

``include`` names a file, or several, relative to the file that names them. The including file wins, key by key, and of
several included files the later one. ``heldout``, ``tasks``, each task and its ``options`` are merged; every other
value (a ``level``, a ``schedule``) replaces the old one whole. A task that is given as ``false`` is taken out. A
relative source starts at the file that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import MixError, did_you_mean
from .sources import resolve_uri
from .yamlfile import read_mapping

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Composed:
    """What a mix file says, with everything that it includes.

    Attributes:
        path: of the file itself.
        content: the mapping, without ``include``; sources are absolute.
        files: all files that were read, included ones first.
        written_in: keys -> the file that had the last word about them.
    """

    path: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    written_in: Mapping[Keys, Path] = field(default_factory=dict)

    def where(self, *keys: str | int) -> str:
        """``FILE: tasks.flipped_patch.level``, with the file that wrote this key, or the nearest one above it."""
        above = (keys[:length] for length in range(len(keys), 0, -1))
        path = next((self.written_in[part] for part in above if part in self.written_in), self.path)
        return f"{path}: {dotted(keys)}"


def dotted(keys: Keys) -> str:
    """``schedule[0].tasks.flipped_patch`` for the keys on the way to a value."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def compose(path: str | Path) -> Composed:
    """The mix of a file, not yet validated. Raises MixError for files that cannot be read, and for circles."""
    return _compose(Path(path).resolve(), above=(), known={})


def self_contained(path: str | Path) -> bytes:
    """A mix as one file that says the same anywhere: as it stands, or with included files and paths filled in."""
    composed = compose(path)
    if composed.content == read_mapping(composed.path, what="mix", error=MixError):
        return composed.path.read_bytes()
    names = ", ".join(str(file) for file in composed.files)
    return f"# made of {names}\n{yaml.safe_dump(composed.content, sort_keys=False)}".encode()


def _compose(path: Path, *, above: tuple[Path, ...], known: dict[Path, Composed]) -> Composed:
    if path in above:
        circle = " -> ".join(str(file) for file in (*above[above.index(path) :], path))
        raise MixError(f"{above[-1]}: include: a mix cannot include itself: {circle}")
    if path in known:  # two includes of one file are fine, and are not read twice
        return known[path]
    own = _with_absolute_sources(read_mapping(path, what="mix", error=MixError), base=path.parent)
    below = Composed(path)
    for file in _included(own.pop("include", []), by=path):
        below = _merge(below, _compose(file, above=(*above, path), known=known), path=path)
    tasks = own.get("tasks")
    left_out = [name for name, task in tasks.items() if task is False] if isinstance(tasks, dict) else []
    included_tasks = below.content.get("tasks")
    for name in left_out:
        if not isinstance(included_tasks, dict) or name not in included_tasks:
            raise MixError(
                f"{path}: tasks.{name}: false takes an included task out, but no included file has this task."
                + did_you_mean(str(name), map(str, included_tasks or ()))
            )
    written = {keys: path for keys in _all_keys(own)}
    merged = _merge(below, Composed(path, own, (path,), written), path=path)
    for name in left_out:
        del merged.content["tasks"][name]
    known[path] = merged
    return merged


def _included(names: object, *, by: Path) -> list[Path]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MixError(f"{by}: include: {names!r:.80} is not the name of a file, nor a list of names")
    files = [(by.parent / name).resolve() for name in names]
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            raise MixError(f"{by}: include: {name!r}: there is no file {str(file)!r}")
    return files


def _with_absolute_sources(content: dict[str, Any], *, base: Path) -> dict[str, Any]:
    def absolute(config: dict[str, Any]) -> dict[str, Any]:
        uri = config.get("source")
        return {**config, "source": resolve_uri(uri, base=base)} if isinstance(uri, str) else dict(config)

    content = absolute(content)
    if isinstance(content.get("tasks"), dict):
        content["tasks"] = {k: absolute(t) if isinstance(t, dict) else t for k, t in content["tasks"].items()}
    return content


def _all_keys(content: Mapping[Any, Any], keys: Keys = ()) -> Iterator[Keys]:
    for key, value in content.items():
        here = (*keys, str(key))
        yield here
        if isinstance(value, dict):
            yield from _all_keys(value, here)


def _merge(below: Composed, above: Composed, *, path: Path) -> Composed:
    files = tuple(dict.fromkeys((*below.files, *above.files)))
    return Composed(path, _merged(below.content, above.content), files, {**below.written_in, **above.written_in})


def _merged(below: Mapping[Any, Any], above: Mapping[Any, Any], keys: Keys = ()) -> dict[Any, Any]:
    merged = dict(below)
    for key, value in above.items():
        here = (*keys, str(key))
        old = merged.get(key)
        if value is None and keys == ("tasks",) and key in merged:
            continue  # a task that is only named changes nothing
        if isinstance(old, dict) and isinstance(value, dict) and _is_merged(here):
            value = _merged(old, value, here)
        merged[key] = value
    return merged


def _is_merged(keys: Keys) -> bool:
    if keys[0] != "tasks":
        return keys == ("heldout",)
    return len(keys) <= 2 or (len(keys) == 3 and keys[2] == "options")
