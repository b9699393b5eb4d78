"""The source ``manifest:FILE``: images listed in a table, for data sets that no other source can read.

    manifest:/data/pairs.csv
    manifest:s3://bucket/photos.jsonl?scale=1000&intrinsics=585,585,320,240

The first line of a CSV file contains the names of the columns, separated by commas, semicolons or tabs; each line of a
JSONL file is an object. Blank lines, and blanks around names and cells of a CSV file, have no meaning. Columns:

- ``image``: path of the image, a text or a list of one. The path relative to the manifest's folder, from which it
  starts, is the id of the image. An absolute path must lead there.
- ``depth`` and ``mask``: paths, see ``depth``. The source has depth if the first line has depth; lines without depth
  are then left out.
- ``scale`` and ``intrinsics``: as for ``rgbd:``, here for one image (``"585,585,320,240"``, or in JSON a list). Where
  they are missing, empty or NaN, the options with the same names apply.

Other columns are ignored. The table is read once, and its content is cached (see ``index``) until the file changes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import Intrinsics
from .base import Files, FileSource
from .depth import NO_CAMERA, intrinsics_option, read_intrinsics, read_scale, scale_option
from .images import kind_suffix
from .index import Facts, Index, index_by_id
from .options import skipped_text
from .store import Store, locate

_LONGEST = 1_000_000  # characters of a line
_OPTIONAL = ("depth", "mask", "scale", "intrinsics")
_MISSING = ("", "nan", "NaN", "None", "null")  # as pandas and others write a cell without a value

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ManifestSource(FileSource):
    """Images listed in a table.

    Attributes:
        name: of the table's file in the store.
        index: path of an image -> those of depth, mask, scale and intrinsics that its line has.
        scale, intrinsics: of images whose lines have none.
    """

    store: Store
    name: str
    index: Index
    has_depth: bool
    scale: float | None
    intrinsics: Intrinsics | None

    def read(self, image_id: str, *, depth: bool) -> Files:
        """The contents of the files in the line of an image."""
        entry = self.index.value(image_id)
        if entry is None:
            raise SourceRejected("file missing")
        return Files(
            self.store.read(image_id),
            self.store.read(entry["depth"]) if depth else None,
            self.store.read(entry["mask"]) if depth and "mask" in entry else None,
            entry.get("scale", self.scale),
            Intrinsics(*entry["intrinsics"]) if "intrinsics" in entry else self.intrinsics,
        )

    def files(self) -> Iterator[str]:
        """Relative paths of all images, depth files and masks."""
        for image_id, entry in self.index.items():
            yield from (image_id, *(entry[key] for key in ("depth", "mask") if key in entry))

    def facts(self) -> Iterator[str]:
        """The lines of the table, without unused columns."""
        return map(repr, self.index.items())


@hookimpl
def ssrl_open_source(uri: str) -> ManifestSource | None:
    """The images of a ``manifest:`` URI. Raises SourceError if there are none."""
    located = locate(uri, "manifest", options=("scale", "intrinsics"), files=(".csv", ".jsonl", ".tsv"))
    if located is None:
        return None
    store, name, options = located
    intrinsics = intrinsics_option(uri, options)
    if not name:
        raise SourceError(f"image source {uri!r}: {str(store)!r} is a folder; name the .csv or .jsonl file in it")
    facts: Facts = {"depth": False, "skipped": Counter[str]()}
    try:
        stamp = store.stamp(name)
        with store.open(name) as file:
            head = file.read(64)
            file.seek(0)
            if kind := kind_suffix(head):
                raise SourceError(f"it is no table{kind}")
            wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
            encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
            lines = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
            # Long lines are read in pieces, so that a file without line ends cannot fill the memory.
            pieces = iter(lambda: lines.readline(_LONGEST), "")
            entries = _entries(store, pieces, facts, is_csv=not name.lower().endswith(".jsonl"))
            index = index_by_id(entries, facts, made_of=("manifest 2", str(store), name, stamp))
    except SourceError as err:
        raise SourceError(f"image source {uri!r}: {err}") from err
    except Exception as err:  # each file system raises its own exceptions
        raise SourceError(f"image source {uri!r}: cannot read it: {type(err).__name__}: {err}") from err
    if not len(index):
        raise SourceError(f"image source {uri!r}: it lists no image{skipped_text(index.facts['skipped'])}")
    has_depth = bool(index.facts["depth"])
    scale = scale_option(uri, options, has_depth=has_depth)
    return ManifestSource(store, name, index, has_depth, scale, intrinsics)


def _entries(store: Store, lines: Iterator[str], facts: Facts, *, is_csv: bool) -> Iterator[tuple[str, Row]]:
    """Path of the image, and what else a line says; ``facts`` gets whether there is depth, and counts other lines."""
    written, skipped, has_depth = filter(str.strip, lines), facts["skipped"], None
    rows: Iterator[Any] = _csv_rows(written) if is_csv else map(_json_row, written)
    while True:
        try:
            row = next(rows)
            if not isinstance(row, dict):
                raise ValueError
            if has_depth is None:
                has_depth = facts["depth"] = bool(row.get("depth"))
            yield _entry(store, row, has_depth=has_depth)
            if not has_depth and any(map(row.get, ("depth", "mask", "scale"))):
                skipped["depth not used, because the first line has none"] += 1
        except StopIteration:
            return
        except SourceRejected as rejected:
            skipped[rejected.reason] += 1
        except (csv.Error, ValueError, RecursionError):
            skipped["line not readable"] += 1


def _json_row(line: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> Row:
        if len(dict(pairs)) < len(pairs):
            raise SourceRejected("line with a key twice")
        return dict(pairs)

    # pandas writes NaN for a missing value.
    return json.loads(line, object_pairs_hook=unique, parse_constant=lambda name: None if name == "NaN" else math.inf)


def _csv_rows(lines: Iterator[str]) -> Iterator[Row]:
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(chain([header], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    doubled = [name for name in ("image", *_OPTIONAL) if names.count(name) > 1]
    if "image" not in names or doubled:
        raise SourceError(
            f"it has {'two columns' if doubled else 'no column'} {(doubled or ['image'])[0]!r}, only {names}"
        )
    reader.fieldnames = names
    return map(_csv_row, reader)


def _csv_row(row: Row) -> Row:
    if any(row.pop(None, ())):  # type: ignore[call-overload]  # the key of cells without a name
        raise SourceRejected("line with more cells than columns")
    cells = {name: (cell or "").rstrip() for name, cell in row.items()}
    return {name: cell for name, cell in cells.items() if cell not in _MISSING}


def _entry(store: Store, row: Row, *, has_depth: bool) -> tuple[str, Row]:
    paths = {key: row[key] for key in ("image", "depth", "mask")[: 3 if has_depth else 1] if row.get(key)}
    for key in ("image", "depth") if has_depth else ("image",):
        if key not in paths:
            raise SourceRejected(f"line without {key}")
    entry: Row = {key: store.relative(path) for key, path in paths.items()}
    for key, read in (("scale", read_scale), ("intrinsics", lambda cell: astuple(read_intrinsics(cell)))):
        try:
            if row.get(key) not in (None, ""):
                entry[key] = read(row[key])
        except (TypeError, ValueError) as err:
            raise SourceRejected(NO_CAMERA if key == "intrinsics" else "scale is no positive number") from err
    return entry.pop("image"), entry
