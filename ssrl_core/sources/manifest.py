"""The source ``manifest:FILE``: images listed in a table, for data sets that no other source can read.

    manifest:/data/pairs.csv
    manifest:s3://bucket/photos.jsonl?scale=1000&intrinsics=585,585,320,240

The first line of a CSV file contains the names of the columns; each line of a JSONL file is an object. Columns:

- ``image``: path of the image relative to the manifest's folder. It is the id of the image.
- ``depth`` and ``mask``: paths, see ``depth``. The source has depth if the first line has depth; lines without depth
  are then left out.
- ``scale`` and ``intrinsics``: as for ``rgbd:``, here for one image (``"585,585,320,240"``, or in JSON a list). Where
  they are missing or empty, the options with the same names apply.

Other columns are ignored. The table is read once, and its content is cached (see ``index``) until the file changes.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import Intrinsics
from .base import Files, FileSource
from .depth import intrinsics_option, read_intrinsics, read_scale, scale_option
from .index import Facts, Index, index_by_id
from .options import skipped_text
from .store import Store, is_text, locate

_LONGEST = 1_000_000  # characters of a line

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
    scale: float
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
    located = locate(uri, "manifest", options=("scale", "intrinsics"), files=(".csv", ".jsonl"))
    if located is None:
        return None
    store, name, options = located
    scale, intrinsics = scale_option(uri, options), intrinsics_option(uri, options)
    if not name:
        raise SourceError(f"image source {uri!r}: {str(store)!r} is a folder; name the .csv or .jsonl file in it")
    skipped = Counter[str]()
    facts: Facts = {"depth": False, "skipped": skipped}
    try:
        stamp = store.stamp(name)
        with store.open(name) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
            # Long lines are read in pieces, so that a file without line ends cannot fill the memory.
            pieces = iter(lambda: lines.readline(_LONGEST), "")
            rows = _rows(pieces, skipped, is_csv=name.lower().endswith(".csv"))
            index = index_by_id(_entries(rows, facts), facts, made_of=("manifest 1", str(store), name, stamp))
    except SourceError as err:
        raise SourceError(f"image source {uri!r}: {err}") from err
    except Exception as err:  # each file system raises its own exceptions
        raise SourceError(f"image source {uri!r}: cannot read it: {type(err).__name__}: {err}") from err
    if not len(index):
        raise SourceError(f"image source {uri!r}: it lists no image{skipped_text(index.facts['skipped'])}")
    return ManifestSource(store, name, index, index.facts["depth"], scale, intrinsics)


def _rows(lines: Iterator[str], skipped: Counter[str], *, is_csv: bool) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True) if is_csv else map(json.loads, lines)
    if isinstance(reader, csv.DictReader) and "image" not in (reader.fieldnames or ()):
        raise SourceError(f"it has no column 'image', only {reader.fieldnames}")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            skipped["line not readable"] += 1


def _entries(rows: Iterator[Row], facts: Facts) -> Iterator[tuple[str, Row]]:
    skipped = facts["skipped"]
    for number, row in enumerate(rows):
        paths = {key: row[key] for key in ("image", "depth", "mask") if row.get(key)}
        if number == 0:
            facts["depth"] = "depth" in paths
        if not facts["depth"]:
            paths = {key: path for key, path in paths.items() if key == "image"}
        image = paths.pop("image", None)
        if image is None or (facts["depth"] and "depth" not in paths):
            skipped["line without depth" if image else "line without image"] += 1
            continue
        if not all(isinstance(path, str) and _is_below(path) for path in (image, *paths.values())):
            skipped["path not below the folder of the manifest"] += 1
            continue
        entry: Row = dict(paths)
        try:
            if row.get("scale"):
                entry["scale"] = read_scale(row["scale"])
            if row.get("intrinsics"):
                camera = read_intrinsics(row["intrinsics"])
                entry["intrinsics"] = (camera.fx, camera.fy, camera.cx, camera.cy)
        except (TypeError, ValueError):
            skipped["scale or intrinsics not readable"] += 1
            continue
        yield image, entry


def _is_below(path: str) -> bool:
    try:
        return is_text(path) and bool(Store("").path(path))
    except SourceRejected:
        return False
