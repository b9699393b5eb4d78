"""The source ``dataset:PATH``: a column of images in Parquet files, or in a data set of Hugging Face.

    dataset:/data/nyu/train-00000-of-00010.parquet
    dataset:hf://datasets/someone/something?files=train/*.parquet
    dataset:/data/saved?image=image&depth=depth_map&scale=1000

PATH is a Parquet file, a folder of them, or a folder that ``datasets`` wrote with ``save_to_disk`` (the latter on this
machine only). A cell is the content of an image file, or a record of ``bytes`` and ``path`` as ``datasets`` writes it,
or a path relative to the folder; depth may also be a list of rows of numbers. The id of an image is the path of its
file, ``#`` and the number of its row.

Options:

- ``files``: a pattern for the files; by default all ``*.parquet``, and ``data-*.arrow`` of ``save_to_disk``.
- ``image`` (by default ``image``), ``depth`` and ``intrinsics``: columns. Without ``depth``, the source has none.
  ``intrinsics`` may also be four numbers; cells have four, or a 3 x 3 matrix.
- ``scale``: as for ``rgbd:``, the same for all images.

A row of a Parquet file is read with its whole row group: 100 rows in a group read quickly, 10,000 do not. Without a
list of images, opening takes no memory; a process that only loads images by their ids reads nothing but these.
"""

from __future__ import annotations

import glob
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import SourceError, SourceRejected, did_you_mean
from ..hookspecs import hookimpl
from ..types import Intrinsics, SourceImage
from .depth import intrinsics_option, join_depth, read_intrinsics, scale_option
from .images import read_rgb
from .options import query_options, skipped_text
from .store import Store, locate

_OPTIONS = ("files", "image", "depth", "scale", "intrinsics")
_MOST_BYTES = 2**30  # of a row group


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """Images in the rows of tables.

    Attributes:
        store: the folder of the files.
        files: a pattern for their paths; "" for the usual ones.
        image, depth, intrinsics: columns; "" where there is none.
        scale: metres in one unit of depth.
        camera: of all images, where no column has it.
    """

    store: Store
    files: str
    image: str
    depth: str
    intrinsics: str
    scale: float
    camera: Intrinsics | None

    @property
    def has_depth(self) -> bool:
        """Whether the images have depth."""
        return bool(self.depth)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [column for column in (self.image, self.depth, self.intrinsics) if column]

    def __len__(self) -> int:
        return self._tables[1][-1]

    @cached_property
    def _tables(self) -> tuple[list[str], list[int], dict[str, int]]:
        """Files, the number of rows in each and those before it, and what is left out. Raises SourceError for none."""
        skipped = Counter[str]()
        files, counts = [], []
        for path in self.store.files(skipped):
            if not _is_table(path, self.files):
                continue
            try:
                table = _open_table(self.store, path, self.store.stamp(path))
            except Exception:  # damaged files raise whatever the reader stumbles over
                skipped["file not readable"] += 1
                continue
            for column in self.columns:
                if column not in table.names:
                    raise SourceError(
                        f"image source 'dataset:{self.store}': {path} has no column {column!r}."
                        f"{did_you_mean(column, table.names)}\n  columns: {', '.join(table.names)}"
                    )
            files.append(path)
            counts.append(table.ends[-1] if table.ends else 0)
        if not sum(counts):
            raise SourceError(
                f"image source 'dataset:{self.store}': no row in {len(files)} files"
                f"{f' of the pattern {self.files}' if self.files else ' *.parquet or data-*.arrow'} in "
                f"{str(self.store)!r}{skipped_text(skipped)}"
            )
        skipped.pop("hidden", None)
        return files, list(accumulate(counts)), dict(skipped)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> number of files that are left out."""
        return self._tables[2]

    def image_id(self, position: int) -> str:
        """The file and row at a position, in the order of the sorted files."""
        files, ends, _ = self._tables
        if not 0 <= position < ends[-1]:
            raise IndexError(f"position {position} is not in 0 .. {ends[-1] - 1}")
        number = bisect_right(ends, position)
        return f"{files[number]}#{position - (ends[number - 1] if number else 0)}"

    def load(self, image_id: str) -> SourceImage:
        """Decode one row. Raises SourceRejected where it is damaged, or its file is or has gone."""
        return self._load(image_id, depth=self.depth)

    def load_rgb(self, image_id: str) -> SourceImage:
        """As ``load``, without depth: its column is not read."""
        return self._load(image_id, depth="")

    def _load(self, image_id: str, *, depth: str) -> SourceImage:
        path, _, row = image_id.rpartition("#")
        if not row.isdecimal() or not _is_table(path, self.files):
            raise SourceRejected("file missing")
        cells = self._cells(path, int(row), [name for name in (self.image, depth, self.intrinsics) if name])
        color = self._content(cells[self.image])
        camera = self.camera
        if self.intrinsics:
            try:
                camera = read_intrinsics(cells[self.intrinsics])
            except (TypeError, ValueError) as err:
                raise SourceRejected("unreadable intrinsics") from err
        if not self.depth:
            rgb = read_rgb(color, upright=camera is None, shrink=camera is None)
            return SourceImage(id=image_id, rgb=rgb, intrinsics=camera)
        cell = cells.get(depth)
        try:
            content = np.array(cell) if isinstance(cell, list) else self._content(cell) if depth else None
        except ValueError as err:
            raise SourceRejected("unreadable depth") from err
        return join_depth(image_id, color, content, scale=self.scale, intrinsics=camera)

    def _cells(self, path: str, row: int, columns: list[str]) -> dict[str, Any]:
        try:
            table = _open_table(self.store, path, self.store.stamp(path))
            return table.row(row, columns)
        except (SourceRejected, SourceError):
            raise
        except FileNotFoundError as err:
            raise SourceRejected("file missing") from err
        except Exception as err:
            raise SourceRejected("unreadable table") from err

    def _content(self, cell: Any) -> bytes:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str):
            return self.store.read(cell)
        if not isinstance(cell, bytes):
            raise SourceRejected("cell without image")
        return cell

    def describe(self) -> str:
        """What the source is, in a line."""
        depth = f" with depth {self.depth}" if self.depth else ""
        files, _, skipped = self._tables
        return f"{len(self)} rows of {self.image}{depth} in {len(files)} files of {self.store}{skipped_text(skipped)}"


@hookimpl
def ssrl_open_source(uri: str) -> DatasetSource | None:
    """The images of a ``dataset:`` URI. Raises SourceError where there is no such file or folder."""
    scheme, _, rest = uri.partition(":")
    if scheme != "dataset":
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError as err:
        raise SourceError(f"image source {uri!r}: needs pyarrow: pip install 'ssrl-core[sources]'") from err
    text, _, query = rest.partition("?")
    options = query_options(uri, query, known=_OPTIONS)
    store, name = locate(uri, text, example="dataset:/data/train.parquet", files=(".parquet", ".arrow"))
    numbers = "," in options.get("intrinsics", "")
    return DatasetSource(
        store,
        glob.escape(name) or options.get("files", ""),
        options.get("image", "image"),
        options.get("depth", ""),
        "" if numbers else options.get("intrinsics", ""),
        scale_option(uri, options),
        intrinsics_option(uri, options) if numbers else None,
    )


def _is_table(path: str, pattern: str) -> bool:
    name = path.rpartition("/")[2]
    return fnmatchcase(path, pattern or "*.parquet") or (not pattern and fnmatchcase(name, "data-*.arrow"))


@dataclass(frozen=True)
class _ParquetTable:
    store: Store
    path: str
    metadata: Any
    names: list[str]
    ends: list[int]

    def row(self, number: int, columns: list[str]) -> dict[str, Any]:
        """The cells of a row by column."""
        import pyarrow.parquet as pq

        group = bisect_right(self.ends, number)
        if group == len(self.ends):
            raise SourceRejected("row missing")
        # Nothing of single columns: where the metadata are damaged, asking for it ends the process.
        if self.metadata.row_group(group).total_byte_size > _MOST_BYTES:
            raise SourceRejected("row group too large")
        with self.store.open(self.path) as file, pq.ParquetFile(file, metadata=self.metadata) as parquet:
            table = parquet.read_row_group(group, columns=columns, use_threads=False)
        first = self.ends[group - 1] if group else 0
        return {column: table.column(column)[number - first].as_py() for column in columns}


@dataclass(frozen=True)
class _ArrowTable:
    batches: list[Any]
    names: list[str]
    ends: list[int]

    def row(self, number: int, columns: list[str]) -> dict[str, Any]:
        """The cells of a row by column."""
        batch = bisect_right(self.ends, number)
        if batch == len(self.ends):
            raise SourceRejected("row missing")
        cells = {}
        for column in columns:
            array = self.batches[batch].column(column)
            array.validate(full=True)  # or else damaged offsets would lead out of the file
            cells[column] = array[number - (self.ends[batch - 1] if batch else 0)].as_py()
        return cells


@lru_cache(maxsize=256)
def _open_table(store: Store, path: str, _stamp: str) -> _ParquetTable | _ArrowTable:
    """A table's rows, not yet read. Another stamp is another table, for a mapped file must not change under us."""
    if path.endswith(".arrow"):
        import pyarrow as pa

        if store.remote:
            raise SourceError(f"{store}: what save_to_disk wrote can be read on this machine only. Copy it here")
        reader = pa.ipc.open_stream(pa.memory_map(store.path(path)))
        batches = list(reader)
        return _ArrowTable(batches, reader.schema.names, list(accumulate(len(batch) for batch in batches)))
    import pyarrow.parquet as pq

    with store.open(path) as file, pq.ParquetFile(file) as parquet:
        metadata, names = parquet.metadata, parquet.schema_arrow.names
    rows = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError("damaged metadata")
    return _ParquetTable(store, path, metadata, names, list(accumulate(rows)))
