"""The source ``dataset:PATH``: a column of images in Parquet files, or in a Hugging Face data set.

    dataset:/data/nyu/train-00000-of-00010.parquet
    dataset:hf://datasets/someone/something?files=train/*.parquet
    dataset:/data/saved?image=image&depth=depth_map&scale=1000

PATH is a Parquet file, a folder of Parquet files, or a local folder written by ``save_to_disk`` of ``datasets``. A cell
is the content of an image file, as bytes or in base64, a record of ``bytes`` and ``path`` as ``datasets`` writes it, a
path of a file in the folder, or a list of one of these; depth may also be a list of rows of numbers. The id of an image
is the path of its file, ``#`` and its row.

Options:

- ``files``: pattern for the files; by default ``*.parquet``, and ``data-*.arrow`` of ``save_to_disk``.
- ``image`` (by default ``image``), ``depth`` and ``intrinsics``: columns. Without ``depth``, the source has no depth.
  ``intrinsics`` may also be four numbers; cells contain four numbers or a 3 x 3 matrix.
- ``scale``: as for ``rgbd:``, the same for all images.

Reading a row of a Parquet file reads its whole row group: 100 rows per group are fast, 10,000 are slow. There is no
index, so opening takes no memory, and a process that only loads images by their ids reads only their tables.
"""

from __future__ import annotations

import base64
import glob
import json
import posixpath
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import SourceError, SourceRejected, did_you_mean
from ..hookspecs import hookimpl
from ..types import Intrinsics
from .base import Files, FileSource
from .depth import NO_CAMERA, intrinsics_option, read_intrinsics, scale_option
from .options import skipped_text
from .store import MOST_BYTES, Store, locate

_OPTIONS = ("files", "image", "depth", "scale", "intrinsics")
_BASE64 = re.compile(r"(?:data:[^,]*;base64,)?([A-Za-z0-9+/\s]{100,}={0,2}\s*)")
_MOST_BYTES = 2**30  # of a row group


class Rows(NamedTuple):
    """The tables of a source.

    Attributes:
        files: their paths, sorted.
        ends: for each file, the number of rows in it and in the files before it.
        skipped: reason -> number of files left out.
    """

    files: list[str]
    ends: list[int]
    skipped: dict[str, int]


@dataclass(frozen=True, eq=False)
class DatasetSource(FileSource):
    """Images in the rows of tables.

    Attributes:
        pattern: for the paths of the files; "" for the default.
        image, depth, intrinsics: names of columns; "" for no column.
        scale: metres per unit of depth; None for the default of its type.
        camera: intrinsics of all images if no column has them.
    """

    store: Store
    pattern: str
    image: str
    depth: str
    intrinsics: str
    scale: float | None
    camera: Intrinsics | None
    blocks = 64
    scheme: ClassVar[str] = "dataset"
    tables: ClassVar[tuple[str, ...]] = ("*.parquet", "data-*.arrow")

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns that a table must have, of which these are the names."""
        return list(filter(None, (self.image, self.depth, self.intrinsics)))

    def _is_table(self, path: str) -> bool:
        name = path.rpartition("/")[2].lower()
        return fnmatchcase(path, self.pattern) if self.pattern else any(fnmatchcase(name, p) for p in self.tables)

    @property
    def has_depth(self) -> bool:
        """Whether the images have depth."""
        return bool(self.depth)

    def __len__(self) -> int:
        return self._rows.ends[-1]

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> number of files that the source leaves out."""
        return self._rows.skipped

    def image_id(self, position: int) -> str:
        """The file and row at a position, in the order of the sorted files."""
        files, ends, _ = self._rows
        if not 0 <= position < ends[-1]:
            raise IndexError(f"position {position} is not in 0 .. {ends[-1] - 1}")
        number = bisect_right(ends, position)
        return f"{files[number]}#{position - (ends[number - 1] if number else 0)}"

    @cached_property
    def _rows(self) -> Rows:
        """The tables. Raises SourceError if they have no row, or a column is missing."""
        skipped = Counter[str]()
        files, counts = [], []
        for path in self.store.files(skipped):
            if not self._is_table(path):
                continue
            try:
                table = open_table(self.store, path, self.store.stamp(path))
            except Exception:  # damaged files raise many types of exceptions
                skipped[f"file not readable{self.store.kind(path)}"] += 1
                continue
            for column in self.columns(table.names):
                if column not in table.names:
                    raise SourceError(
                        f"image source '{self.scheme}:{self.store}': {path} has no column {column!r}."
                        f"{did_you_mean(column, table.names)}\n  columns: {', '.join(table.names)}"
                    )
            files.append(path)
            counts.append(table.ends[-1] if table.ends else 0)
        if not sum(counts):
            raise SourceError(
                f"image source '{self.scheme}:{self.store}': no row in the {len(files)} files "
                f"{self.pattern or ' or '.join(self.tables)} in {str(self.store)!r}{skipped_text(skipped)}"
            )
        skipped.pop("hidden", None)
        return Rows(files, list(accumulate(counts)), dict(skipped))

    def read(self, image_id: str, *, depth: bool) -> Files:
        """The contents of the cells of a row."""
        path, _, row = image_id.rpartition("#")
        if not row.isdecimal() or not self._is_table(path):
            raise SourceRejected("file missing")
        columns = filter(None, (self.image, self.depth if depth else "", self.intrinsics))
        cells = self.cells(path, int(row), list(columns))
        color, camera, metres = self._content(cells[self.image], "image"), self.camera, None
        if self.intrinsics:
            try:
                camera = read_intrinsics(cells[self.intrinsics])
            except (TypeError, ValueError) as err:
                raise SourceRejected(NO_CAMERA) from err
        if depth:
            cell = content_of(cells[self.depth])
            try:
                metres = np.array(cell) if isinstance(cell, list) else self._content(cell, "depth")
            except ValueError as err:
                raise SourceRejected("unreadable depth") from err
        return Files(color, metres, None, self.scale, camera)

    def cells(self, path: str, row: int, columns: list[str]) -> dict[str, Any]:
        """The cells of a row, column -> cell. Raises SourceRejected."""
        try:
            return open_table(self.store, path, self.store.stamp(path)).row(row, columns)
        except (SourceRejected, SourceError):
            raise
        except FileNotFoundError as err:
            raise SourceRejected("file missing") from err
        except Exception as err:
            raise SourceRejected("unreadable table") from err

    def _content(self, cell: Any, what: str) -> bytes:
        content = content_of(cell)
        if isinstance(content, list):
            raise SourceRejected("cell with a list of several" if content else f"cell without {what}")
        if isinstance(content, str):
            return self.store.read(self.store.relative(content))
        if not isinstance(content, bytes):
            raise SourceRejected(f"cell without {what}")
        return content

    def files(self) -> Iterator[str]:
        """Relative paths of the tables; if cells contain paths, of all files below the folder."""
        files = self._rows.files
        with suppress(SourceRejected):
            for cell in self.cells(files[0], 0, list(filter(None, (self.image, self.depth)))).values():
                if isinstance(content_of(cell), str):
                    return self.store.files(Counter())
        return iter(files)


@hookimpl
def ssrl_open_source(uri: str) -> DatasetSource | None:
    """The images of a ``dataset:`` URI. Raises SourceError if the file or folder does not exist."""
    located = locate(uri, "dataset", options=_OPTIONS, files=(".parquet", ".arrow"))
    if located is None:
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError as err:
        raise SourceError(f"image source {uri!r}: needs pyarrow: pip install 'ssrl-core[sources]'") from err
    store, name, options = located
    numbers = "," in options.get("intrinsics", "")
    return DatasetSource(
        store,
        glob.escape(name) or options.get("files", ""),
        options.get("image", "image"),
        options.get("depth", ""),
        "" if numbers else options.get("intrinsics", ""),
        scale_option(uri, options, has_depth="depth" in options),
        intrinsics_option(uri, options) if numbers else None,
    )


def content_of(cell: Any) -> Any:
    """What a cell contains: bytes of a file, its path as text, or anything else as it is."""
    if isinstance(cell, list) and len(cell) == 1 and not isinstance(cell[0], list | int | float):
        cell = cell[0]
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str) and (found := _BASE64.fullmatch(cell)):
        with suppress(ValueError):  # then it is a path
            return base64.b64decode(found[1])
    return cell


class Table(NamedTuple):
    """A table that has not been read yet.

    Attributes:
        names: of all columns.
        ends: for each chunk (row group, record batch or line), the number of rows in it and in the chunks before it.
        chunk: from the number of a chunk and names of columns, or of ``texts``, to these columns.
        texts: paths of the leaves of a Parquet file that are texts, e.g. ``images.list.element.path``.
    """

    names: list[str]
    ends: Sequence[int]
    chunk: Callable[[int, list[str]], list[Any]]
    texts: Sequence[str] = ()

    def row(self, number: int, columns: list[str]) -> dict[str, Any]:
        """The cells of a row, column -> cell."""
        chunk = bisect_right(self.ends, number)
        if chunk == len(self.ends):
            raise SourceRejected("row missing")
        first = self.ends[chunk - 1] if chunk else 0
        arrays = self.chunk(chunk, columns)
        return {column: array[number - first].as_py() for column, array in zip(columns, arrays, strict=True)}


class _Cell(NamedTuple):
    value: Any

    def as_py(self) -> Any:
        return self.value


@lru_cache(maxsize=256)
def open_table(store: Store, path: str, _stamp: str) -> Table:
    """A table. The stamp is part of the key of this cache, because a mapped file must not change."""
    kinds = {".arrow": _arrow, ".jsonl": _json_lines}
    return kinds.get(posixpath.splitext(path)[1].lower(), _parquet)(store, path)


def _parquet(store: Store, path: str) -> Table:
    import pyarrow.parquet as pq

    with store.open(path) as file, pq.ParquetFile(file) as parquet:
        metadata, names = parquet.metadata, parquet.schema_arrow.names
    rows = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError("damaged metadata")

    def chunk(number: int, columns: list[str]) -> list[Any]:
        # The metadata of single columns are not used: if they are damaged, reading them ends the process.
        if metadata.row_group(number).total_byte_size > _MOST_BYTES:
            raise SourceRejected("row group too large")
        with store.open(path) as file, pq.ParquetFile(file, metadata=metadata) as parquet:
            table = parquet.read_row_group(number, columns=columns, use_threads=False)
        return [table.column(name if name in table.column_names else name.partition(".")[0]) for name in columns]

    texts = [leaf.path for leaf in metadata.schema if leaf.logical_type.type == "STRING"]
    return Table(names, list(accumulate(rows)), chunk, texts)


def _arrow(store: Store, path: str) -> Table:
    import pyarrow as pa

    if store.remote:
        raise SourceError(f"{store}: data sets of save_to_disk must be on this machine. Copy the folder here")
    source = pa.memory_map(store.path(path))
    if source.read(6) == b"ARROW1":  # Feather; datasets writes streams
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
    else:
        source.seek(0)
        reader = pa.ipc.open_stream(source)
        batches = list(reader)

    def chunk(number: int, columns: list[str]) -> list[Any]:
        arrays = [batches[number].column(column) for column in columns]
        for column in arrays:
            column.validate(full=True)  # damaged offsets would read outside the file
        return arrays

    return Table(reader.schema.names, list(accumulate(map(len, batches))), chunk)


def _json_lines(store: Store, path: str) -> Table:
    """A table of JSON objects, one a line. In memory are 8 bytes a line; a chunk is one line."""
    starts, start, first = array("q"), 0, None
    with store.open(path) as file:
        for line in iter(lambda: file.readline(MOST_BYTES), b""):
            if line.strip():
                starts.append(start)
                first = first or json.loads(line.decode("utf-8-sig"))
            start += len(line)
    if not isinstance(first, dict):
        raise ValueError("no object in the first line")

    def chunk(number: int, columns: list[str]) -> list[Any]:
        with store.open(path) as file:
            file.seek(starts[number])
            try:
                row = json.loads(file.readline(MOST_BYTES).decode("utf-8-sig"))
            except (ValueError, RecursionError) as err:
                raise SourceRejected("line not readable") from err
        if not isinstance(row, dict):
            raise SourceRejected("line not readable")
        return [[_Cell(row.get(column))] for column in columns]

    return Table(list(first), range(1, len(starts) + 1), chunk)
