"""YAML files that include others, as one mapping that knows which file wrote each key.

``include`` names a file, or a list of files, relative to the file that contains it. Values of the including file win,
key by key; of several included files the later one wins. Mixes and training recipes both use this. They differ in
which mappings are merged: a recipe merges all of them; a mix merges ``heldout``, ``tasks``, each task and its
``options``, and replaces any other value (a ``level``, a ``schedule``) as a whole. A task that is ``false`` is removed.

OmegaConf merges files too. It is not used because it merges every mapping, reads ``${...}`` in prompts as references,
and does not say which file wrote a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MixError, SSRLError, did_you_mean
from ..sources import resolve_uri
from ..yamlfile import dump, read_mapping

Keys = tuple[str | int, ...]


class Kind(NamedTuple):
    """A kind of YAML files.

    Attributes:
        what: its name in messages.
        error: raised for an invalid file.
        absolute: the content with absolute paths, from the content and the folder of its file.
        merges: whether the mappings under these keys are merged.
    """

    what: str
    error: type[SSRLError]
    absolute: Callable[[dict[str, Any], Path], dict[str, Any]]
    merges: Callable[[Keys], bool]


@dataclass(frozen=True)
class Composed:
    """The content of a file and of the files that it includes.

    Attributes:
        path: of the file itself.
        content: the mapping without ``include``; its paths are absolute.
        files: all files that were read, included ones first.
        written_in: keys -> the file whose value counts.
    """

    path: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    written_in: Mapping[Keys, Path] = field(default_factory=dict)

    def where(self, *keys: str | int) -> str:
        """``FILE: tasks.flipped_patch.level``, with the file that wrote this key or the nearest key above it."""
        above = (keys[:length] for length in range(len(keys), 0, -1))
        path = next((self.written_in[part] for part in above if part in self.written_in), self.path)
        return f"{path}: {dotted(keys)}"


def dotted(keys: Keys) -> str:
    """``schedule[0].tasks.flipped_patch`` for the keys that lead to a value."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def compose(path: str | Path, kind: Kind | None = None) -> Composed:
    """A file with the files that it includes, not yet validated.

    Args:
        path: of the file.
        kind: of the files; a mix if None.

    Raises:
        MixError, or the error of the kind: a file cannot be read, or includes itself.
    """
    return _compose(Path(path).resolve(), kind or MIX, above=(), known={})


def self_contained(path: str | Path) -> bytes:
    """A mix as one file with the same meaning anywhere: as written if possible, else with includes and paths resolved.

    Raises:
        MixError: see ``compose``.
    """
    composed = compose(path)
    if composed.content == read_mapping(composed.path, what="mix", error=MixError):
        return composed.path.read_bytes()
    names = ", ".join(str(file) for file in composed.files)
    return f"# made of {names}\n{dump(composed.content)}".encode()


def _compose(path: Path, kind: Kind, *, above: tuple[Path, ...], known: dict[Path, Composed]) -> Composed:
    if path in above:
        circle = " -> ".join(str(file) for file in (*above[above.index(path) :], path))
        raise kind.error(f"{above[-1]}: include: a {kind.what} cannot include itself: {circle}")
    if path in known:  # two includes of one file are allowed; it is read once
        return known[path]
    own = kind.absolute(read_mapping(path, what=kind.what, error=kind.error), path.parent)
    below = Composed(path)
    for file in _included(own.pop("include", []), kind, by=path):
        below = _merge(below, _compose(file, kind, above=(*above, path), known=known), kind, path=path)
    removed = _removed_tasks(own, below, path) if kind is MIX else []
    written = {keys: path for keys in _all_keys(own)}
    known[path] = _merge(below, Composed(path, own, (path,), written), kind, path=path)
    for name in removed:
        del known[path].content["tasks"][name]
    return known[path]


def _included(names: object, kind: Kind, *, by: Path) -> list[Path]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise kind.error(f"{by}: include: {names!r:.80} is neither the name of a file nor a list of names")
    files = [(by.parent / os.path.expanduser(name)).resolve() for name in names]
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            raise kind.error(f"{by}: include: {name!r}: there is no file {str(file)!r}")
    return files


def _removed_tasks(own: Mapping[str, Any], below: Composed, path: Path) -> list[str]:
    """The tasks that a mix file gives as ``false``."""
    tasks, included = own.get("tasks"), below.content.get("tasks")
    names = [name for name, task in tasks.items() if task is False] if isinstance(tasks, dict) else []
    for name in names:
        if not isinstance(included, dict) or name not in included:
            raise MixError(
                f"{path}: tasks.{name}: false removes an included task, but no included file has this task."
                + did_you_mean(str(name), map(str, included or ()))
            )
    return names


def _all_keys(content: Mapping[Any, Any], keys: Keys = ()) -> Iterator[Keys]:
    for key, value in content.items():
        here = (*keys, str(key))
        yield here
        if isinstance(value, dict):
            yield from _all_keys(value, here)


def _merge(below: Composed, above: Composed, kind: Kind, *, path: Path) -> Composed:
    files = tuple(dict.fromkeys((*below.files, *above.files)))
    content = merged(below.content, above.content, kind.merges)
    return Composed(path, content, files, {**below.written_in, **above.written_in})


def merged(
    below: Mapping[Any, Any], above: Mapping[Any, Any], merges: Callable[[Keys], bool], keys: Keys = ()
) -> dict[Any, Any]:
    """Two mappings as one. Values of ``above`` win; mappings under keys for which ``merges`` is true are merged.

    None in ``above`` leaves a mapping of ``below`` as it is, so that a task can be named without changing it.
    """
    result = dict(below)
    for key, value in above.items():
        here = (*keys, str(key))
        old = result.get(key)
        if value is None and keys == ("tasks",) and key in result:
            continue
        if isinstance(old, Mapping) and isinstance(value, Mapping) and merges(here):
            value = merged(old, value, merges, here)
        result[key] = value
    return result


def _with_absolute_sources(content: dict[str, Any], base: Path) -> dict[str, Any]:
    def absolute(config: dict[str, Any]) -> dict[str, Any]:
        uri, rows = config.get("source"), config.get("rows")
        config = {**config, "source": resolve_uri(uri, base=base)} if isinstance(uri, str) else dict(config)
        if isinstance(rows, str):
            config["rows"] = resolve_uri(f"rows:{rows}", base=base).removeprefix("rows:")
        return config

    content = absolute(content)
    if isinstance(content.get("tasks"), dict):
        content["tasks"] = {k: absolute(t) if isinstance(t, dict) else t for k, t in content["tasks"].items()}
    return content


def _merges_in_mix(keys: Keys) -> bool:
    if keys[0] != "tasks":
        return keys == ("heldout",)
    return len(keys) <= 2 or (len(keys) == 3 and keys[2] == "options")


MIX = Kind("mix", MixError, _with_absolute_sources, _merges_in_mix)
