"""The source ``manifest:FILE``: images that a table names, for whatever has no source of its own.

    manifest:/data/pairs.csv
    manifest:s3://bucket/photos.jsonl?scale=1000&intrinsics=585,585,320,240

A CSV file has a line with the names of its columns first; a JSONL file has an object on each line. Columns:

- ``image``: the path of the image relative to the manifest's folder, which is the id.
- ``depth`` and ``mask``: likewise, see ``source_depth``. The source has depth if its first line has; a line without is
  then left out.
- ``scale`` and ``intrinsics``: as for ``rgbd:``, here for one image (``"585,585,320,240"``, or in JSON a list). Where
  they are missing or empty, the options of the same names count.

Other columns are ignored. The table is read once, and what it says is kept in the cache (see ``source_index``) until
the file changes.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import Intrinsics, SourceImage
from .depth import intrinsics_option, join_depth, read_intrinsics, read_scale, scale_option
from .images import read_rgb
from .index import Facts, Index, Indexed, index_by_id
from .options import query_options, skipped_text
from .store import Store, locate

_LONGEST = 1_000_000  # characters of a line

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ManifestSource(Indexed):
    """Images that a table names.

    Attributes:
        store: the folder of the table.
        name: of the table's file.
        index: path of an image -> its depth, mask, scale and intrinsics, as far as the table says.
        scale, intrinsics: where the table says nothing.
    """

    store: Store
    name: str
    index: Index
    scale: float
    intrinsics: Intrinsics | None

    @property
    def has_depth(self) -> bool:
        """Whether the images have depth."""
        return bool(self.index.facts["depth"])

    def load(self, image_id: str) -> SourceImage:
        """Decode one image. Raises SourceRejected where a file is missing or damaged, or they do not fit."""
        return self._load(image_id, depth=self.has_depth)

    def load_rgb(self, image_id: str) -> SourceImage:
        """As ``load``, without depth: its file is not read."""
        return self._load(image_id, depth=False)

    def _load(self, image_id: str, *, depth: bool) -> SourceImage:
        entry = self.index.value(image_id)
        if entry is None:
            raise SourceRejected("file missing")
        camera = Intrinsics(*entry["intrinsics"]) if "intrinsics" in entry else self.intrinsics
        color = self.store.read(image_id)
        if not self.has_depth:
            # Intrinsics belong to the stored pixels.
            rgb = read_rgb(color, upright=camera is None, shrink=camera is None)
            return SourceImage(id=image_id, rgb=rgb, intrinsics=camera)
        return join_depth(
            image_id,
            color,
            self.store.read(entry["depth"]) if depth else None,
            mask=self.store.read(entry["mask"]) if depth and "mask" in entry else None,
            scale=entry.get("scale", self.scale),
            intrinsics=camera,
        )

    def describe(self) -> str:
        """What the source is, in a line."""
        depth = " with depth" * self.has_depth
        return f"{len(self)} images{depth} of {self.name} in {self.store}{skipped_text(self.skipped)}"


@hookimpl
def ssrl_open_source(uri: str) -> ManifestSource | None:
    """The images of a ``manifest:`` URI. Raises SourceError where there are none."""
    scheme, _, rest = uri.partition(":")
    if scheme != "manifest":
        return None
    text, _, query = rest.partition("?")
    options = query_options(uri, query, known=("scale", "intrinsics"))
    scale, intrinsics = scale_option(uri, options), intrinsics_option(uri, options)
    store, name = locate(uri, text, example="manifest:/data/pairs.csv", files=(".csv", ".jsonl"))
    if not name:
        raise SourceError(f"image source {uri!r}: {str(store)!r} is a folder; name the .csv or .jsonl file in it")
    skipped = Counter[str]()
    facts: Facts = {"depth": False, "skipped": skipped}
    try:
        stamp = store.stamp(name)
        with store.open(name) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
            # In pieces, so that a file without line ends cannot fill the memory.
            pieces = iter(lambda: lines.readline(_LONGEST), "")
            rows = _csv_rows(pieces, skipped) if name.lower().endswith(".csv") else _json_rows(pieces, skipped)
            index = index_by_id(_entries(rows, facts), facts, made_of=("manifest 1", str(store), name, stamp))
    except SourceError as err:
        raise SourceError(f"image source {uri!r}: {err}") from err
    except Exception as err:  # each file system has errors of its own
        raise SourceError(f"image source {uri!r}: cannot read it: {type(err).__name__}: {err}") from err
    if not len(index):
        raise SourceError(f"image source {uri!r}: it names no image{skipped_text(index.facts['skipped'])}")
    return ManifestSource(store, name, index, scale, intrinsics)


def _csv_rows(lines: Iterator[str], skipped: Counter[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True)
    if "image" not in (reader.fieldnames or ()):
        raise SourceError(f"it has no column 'image', only {reader.fieldnames}")
    return _readable(lambda: next(reader), skipped)


def _json_rows(lines: Iterator[str], skipped: Counter[str]) -> Iterator[Row]:
    return _readable(lambda: json.loads(next(lines)), skipped)


def _readable(read: Callable[[], Any], skipped: Counter[str]) -> Iterator[Row]:
    while True:
        try:
            row = read()
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
        path.encode()
        Store("").path(path)
    except (SourceRejected, UnicodeEncodeError):
        return False
    return True
