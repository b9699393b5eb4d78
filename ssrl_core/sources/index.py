"""The ids of a source's images in a memory-mapped file: the memory does not grow with the number of images.

A file contains the text of all ids and values, one row of fixed width per image, and facts about the whole. An index
that is expensive to make is cached in the folder ``SSRL_CACHE`` (by default ``ssrl`` in the user's cache folder), under
a hash of what it was made from. Other indices are temporary files.

This is not an SQLite file for two reasons, both measured with a million ids. ``id`` takes 0.5 microseconds instead of
2.5, and an index by id is built in half the time, in half the space. A mapped temporary file has no name: it vanishes
with the last process, even a killed one, and is shared by threads and forks, whereas SQLite needs a named file and a
connection per process and thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import shutil
import struct
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any

import numpy as np

from ..errors import SourceError
from ..files import cache_folder, written_whole
from ..seeding import stable_hash

logger = logging.getLogger(__name__)

Facts = dict[str, Any]
Entry = tuple[str, Any]

_ROW = struct.Struct("<QQII")  # hash of the id, start of its text, length of the id, length of its value
_END = struct.Struct("<QQQ8s")  # number of rows, length of the text, length of the facts, _MARK
_MARK = b"ssrl-ix1"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Index:
    """Ids by position and, if made by ``index_by_id``, values by id. Safe to share between threads and with forks.

    Attributes:
        facts: about the whole, in plain JSON types; ``skipped`` is reason -> number of entries left out.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Map a file. Raises ValueError if it is not a complete index."""
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = len(self._map) - _END.size
        self._count, self._text, length, mark = _END.unpack_from(self._map, end) if end >= 0 else (0, 0, 0, b"")
        if mark != _MARK or self._text + self._count * _ROW.size + length != end:
            raise ValueError("not an index")
        self.facts: Facts = json.loads(self._map[end - length : end])

    def __len__(self) -> int:
        return int(self._count)

    def __iter__(self) -> Iterator[str]:
        return map(self.id, range(len(self)))

    def id(self, position: int) -> str:
        """The id at a position. Raises IndexError if there is none."""
        _, start, length, _ = self._row(position)
        return self._map[start : start + length].decode()

    def value(self, image_id: str) -> Any:
        """The value stored with an id; None if the index does not contain the id."""
        number = stable_hash(image_id)
        position = bisect_left(range(len(self)), number, key=lambda k: self._row(k)[0])
        if position == len(self) or self.id(position) != image_id:
            return None
        return self._value(position)

    def items(self) -> Iterator[Entry]:
        """All ids with their values, in order."""
        return ((self.id(k), self._value(k)) for k in range(len(self)))

    def _value(self, position: int) -> Any:
        _, start, length, more = self._row(position)
        return json.loads(self._map[start + length : start + length + more])

    def _row(self, position: int) -> tuple[int, int, int, int]:
        if not 0 <= position < self._count:
            raise IndexError(f"position {position} is not in 0 .. {len(self) - 1}")
        return _ROW.unpack_from(self._map, self._text + position * _ROW.size)


def list_ids(ids: Iterable[str], facts: Facts) -> Index:
    """A temporary index of ids in the given order. ``facts`` are read after the last id."""
    return _temporary(((image_id, None) for image_id in ids), facts, by_id=False)


def index_by_id(entries: Iterable[Entry], facts: Facts, *, made_of: object = None) -> Index:
    """An index of ids with values in plain JSON types, ordered by the hash of the id.

    Args:
        entries: id and value of each image; of several entries with the same id, the first one counts. Not iterated
            if the cache contains the index.
        facts: about the whole; read after the last entry.
        made_of: everything that the index depends on, the key of the cache; None for a temporary index.
    """
    key = hashlib.sha256(repr(made_of).encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache_folder() / f"{key}.index"
    if made_of is not None:
        with suppress(OSError, ValueError), path.open("rb") as file:
            return Index(file)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
    if made_of is None or not os.access(path.parent, os.W_OK):
        if made_of is not None:
            logger.warning("cannot write into %s: this list of images is not kept. Set SSRL_CACHE", path.parent)
        return _temporary(entries, facts, by_id=True)
    with written_whole(path) as file:  # another process may write the same index at the same time
        _write(file, entries, facts, by_id=True)
    with path.open("rb") as file:
        return Index(file)


def _temporary(entries: Iterable[Entry], facts: Facts, *, by_id: bool) -> Index:
    with tempfile.TemporaryFile(prefix="ssrl-index-") as file:
        _write(file, entries, facts, by_id=by_id)
        return Index(file)


def _write(file: IO[bytes], entries: Iterable[Entry], facts: Facts, *, by_id: bool) -> None:
    try:
        with tempfile.TemporaryFile(prefix="ssrl-rows-") as rows:
            start = count = 0
            for image_id, value in entries:
                name = image_id.encode()
                more = _encode(value).encode() if by_id else b""
                file.write(name + more)
                rows.write(_ROW.pack(stable_hash.__wrapped__(image_id) if by_id else 0, start, len(name), len(more)))
                start, count = start + len(name) + len(more), count + 1
            rows.seek(0)
            if by_id:
                table = np.fromfile(rows, dtype=[("hash", "<u8"), ("rest", "V16")])
                _, first = np.unique(table["hash"], return_index=True)
                if doubled := count - len(first):
                    facts.setdefault("skipped", {})["same name as another"] = doubled
                file.write(table[first].tobytes())
                count = len(first)
            else:
                shutil.copyfileobj(rows, file)
        about = json.dumps(facts).encode()
        file.write(about + _END.pack(count, start, len(about), _MARK))
        file.flush()
    except OSError as err:
        raise SourceError(
            f"cannot write the list of a source's images: {err}. Free some space, or set SSRL_CACHE and TMPDIR to "
            "folders that have space"
        ) from err
