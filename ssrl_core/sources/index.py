"""The list of a source's images on disk: however long it is, it takes no memory.

An index is one file that is mapped, not read: the text of all ids and values, then a row of fixed width for each image,
then the facts of the whole. An index that is cheap to make lies in a temporary file; one that is not is kept in the
folder ``SSRL_CACHE`` (by default ``ssrl`` in the user's cache folder) under a name that stands for what it was made of.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import SourceError
from ..files import written_whole
from ..seeding import stable_hash

Facts = dict[str, Any]

_ROW = struct.Struct("<QQII")  # hash of the id, where its text begins, length of the id, length of its value
_END = struct.Struct("<QQQ8s")  # number of rows, length of the text, length of the facts, and:
_MARK = b"ssrl-ix1"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Index:
    """Ids by position and, where it was made ``by_id``, values by id. Safe to share between threads and with forks.

    Attributes:
        facts: about the whole, in plain JSON types; ``skipped`` counts what is not in it by reason.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Map a file. Raises ValueError where it is no whole index."""
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._map) < _END.size:
            raise ValueError("no index")
        self._count, self._text, length, mark = _END.unpack_from(self._map, len(self._map) - _END.size)
        if mark != _MARK or self._text + self._count * _ROW.size + length + _END.size != len(self._map):
            raise ValueError("no index")
        self.facts: Facts = json.loads(self._map[len(self._map) - _END.size - length : -_END.size])

    def __len__(self) -> int:
        return int(self._count)

    def __iter__(self) -> Iterator[str]:
        return map(self.id, range(len(self)))

    def id(self, position: int) -> str:
        """The id at a position. Raises IndexError where there is none."""
        _, start, length, _ = self._row(position)
        return self._map[start : start + length].decode()

    def value(self, image_id: str) -> Any:
        """What was stored with an id; None where the index does not have it."""
        number = stable_hash(image_id)
        position = bisect_left(range(len(self)), number, key=lambda k: self._row(k)[0])
        if position == len(self) or self.id(position) != image_id:
            return None
        _, start, length, more = self._row(position)
        return json.loads(self._map[start + length : start + length + more])

    def _row(self, position: int) -> tuple[int, int, int, int]:
        if not 0 <= position < self._count:
            raise IndexError(f"position {position} is not in 0 .. {len(self) - 1}")
        return _ROW.unpack_from(self._map, self._text + position * _ROW.size)


class Indexed:
    """A source whose images stand in an index: their number, their ids, and what was left out."""

    if TYPE_CHECKING:  # a field of some sources; others make it when it is asked for

        @property
        def index(self) -> Index:
            """The list of the images."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> number of files or entries that are left out."""
        return dict(self.index.facts["skipped"])

    def image_id(self, position: int) -> str:
        """The id at a position, in the order of the index."""
        return self.index.id(position)


def list_ids(ids: Iterable[str], facts: Facts) -> Index:
    """An index in a temporary file, in the order of ``ids``; ``facts`` are read when these have come to their end."""
    with tempfile.TemporaryFile(prefix="ssrl-index-") as file:
        _write(file, ((image_id, None) for image_id in ids), facts, by_id=False)
        return Index(file)


def index_by_id(entries: Iterable[tuple[str, Any]], facts: Facts, *, made_of: object = None) -> Index:
    """An index with a value (in plain JSON types) for each id; of several entries with one id the first one counts.

    Args:
        entries: id and value of each image; not touched where the cache has the index.
        facts: of the whole; read when the entries have come to their end.
        made_of: everything that the index depends on: it is kept in the cache, and made anew where this is another.
            None keeps it out of the cache.
    """
    key = hashlib.sha256(repr(made_of).encode(errors="surrogateescape")).hexdigest()[:32]
    path = _cache_folder() / f"{key}.index"
    if made_of is not None:
        with suppress(OSError, ValueError), path.open("rb") as file:
            return Index(file)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
    if made_of is None or not os.access(path.parent, os.W_OK):  # a cache that cannot be written to is done without
        with tempfile.TemporaryFile(prefix="ssrl-index-") as file:
            _write(file, entries, facts, by_id=True)
            return Index(file)
    with written_whole(path) as file:  # other processes may make the same one at the same time
        _write(file, entries, facts, by_id=True)
    with path.open("rb") as file:
        return Index(file)


def _cache_folder() -> Path:
    chosen = os.environ.get("SSRL_CACHE")
    return Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ssrl").expanduser()


def _write(file: IO[bytes], entries: Iterable[tuple[str, Any]], facts: Facts, *, by_id: bool) -> None:
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
            f"cannot write the list of a source's images: {err}. Make room, or let SSRL_CACHE and TMPDIR name folders "
            "that have some"
        ) from err
