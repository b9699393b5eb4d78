"""``ssrl catalog``: the distributions that can be installed, and what the conformance kit found."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..files import written_whole
from ..plugins.catalog import KINDS, SHIPPED, Catalog, Entry, dump, newest, read, saved_file
from ..yamlfile import LARGEST_FILE
from .terminal import AsJson, show, table

TIMEOUT = 30.0
"""Seconds that a server may take to answer."""


def update(place: str) -> Iterator[str]:
    """Save the catalog of a file or URL for later commands; yields what it changes, a line each.

    Raises SSRLError if it cannot be read, is invalid, or is older than the one in use. Then nothing is saved.
    """
    found = _found(place)
    known = read(SHIPPED)
    with suppress(SSRLError):  # a damaged file is replaced
        known = newest()[0]
    if found.updated < known.updated:
        raise SSRLError(
            f"{place} was updated on {found.updated}, before the catalog in use ({known.updated}). Nothing has changed"
        )
    path = saved_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(dump(found).encode())
    yield from changes(known, found) or ["nothing has changed"]


def changes(old: Catalog, new: Catalog) -> list[str]:
    """The differences between two catalogs, a line for each distribution."""
    before, after = old.distributions, new.distributions
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"removed  {name}")
        elif name not in before:
            lines.append(f"added    {name}: {after[name].summary} ({state(after[name])})")
        elif before[name] != after[name]:
            states = [state(before[name]), state(after[name])]
            facts = before[name].model_copy(update={"checked": after[name].checked})
            parts = [" -> ".join(states)] * (states[0] != states[1]) + ["other facts"] * (facts != after[name])
            lines.append(f"changed  {name}: {'; '.join(parts) or 'checked again'}")
    return lines


def _found(place: str) -> Catalog:
    if not place.startswith(("http://", "https://")):
        return read(Path(place))
    try:
        with urllib.request.urlopen(place, timeout=TIMEOUT) as answer:
            content = answer.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as err:
        raise SSRLError(f"cannot fetch the catalog {place}: {err}. Nothing has changed") from err
    with TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.yaml"
        path.write_bytes(content)
        try:
            return read(path)
        except SSRLError as err:
            raise SSRLError(str(err).replace(str(path), place)) from err


def facts(catalog: Catalog, path: Path) -> dict[str, Any]:
    """The catalog as JSON values, with the file that it is from and the version of each installed distribution."""
    content = catalog.model_dump(mode="json")
    for name, entry in content["distributions"].items():
        entry["installed"] = _installed(name)
    return {"file": str(path), **content}


def text(catalog: Catalog, path: Path) -> str:
    """The catalog as a table, with the faults below it."""
    rows: list[tuple[str, ...]] = [("distribution", "provides", "needs", "check", "of", "on", "installed", "summary")]
    faults = []
    for name, entry in catalog.distributions.items():
        checked = entry.checked
        of, on = (checked.version, str(checked.date)) if checked else ("", "")
        cells = (name, provided(entry), ", ".join(entry.needs), state(entry), of, on, _installed(name) or "")
        rows.append((*(cell or "-" for cell in cells), entry.summary))
        faults += [f"{name}: {fault}" for fault in (checked.faults if checked else ())]
    where = f"shipped with ssrl-core {_installed('ssrl-core')}" if path == SHIPPED else str(path)
    parts = [f"catalog of {catalog.updated} ({where})", table(rows), "\n".join(faults)]
    return "\n\n".join([*filter(None, parts), "to install one: pip install DISTRIBUTION"])


def provided(entry: Entry, *, mark: str = "") -> str:
    """What a distribution provides: tasks by their names, other kinds with the name of the kind; names in marks."""
    parts = [(kind, f"{mark}{name}{mark}") for kind in KINDS for name in getattr(entry, kind)]
    return ", ".join(name if kind == "tasks" else f"{kind[:-1]} {name}" for kind, name in parts)


def state(entry: Entry) -> str:
    """The result of the last check, with the number of declared failures."""
    declared = entry.checked.declared if entry.checked else 0
    return f"{entry.status}, {declared} declared" if declared else entry.status


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def command(
    place: Annotated[
        str | None,
        typer.Option("--update", metavar="URL|FILE", help="Save a newer catalog, and say what changes."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    if place is not None:
        typer.echo("\n".join(update(place)), err=as_json)
    catalog, path = newest()
    show(facts(catalog, path), lambda _: text(catalog, path), as_json=as_json)
