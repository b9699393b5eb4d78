"""The folder in which the files of a source lie: on this machine, or on any file system that fsspec reads.

``s3://bucket/photos``, ``gs://...``, ``hf://datasets/name``, ``https://host/folder``, ``memory://x`` and chains like
``simplecache::s3://bucket/photos`` go through fsspec, which takes credentials from the environment and from its own
configuration files. Any other text is a path on this machine.

Local paths do not go through fsspec's ``LocalFileSystem``: it calls ``stat`` for every file that it lists (6.4
microseconds per file instead of 0.4, and one request per file on a network file system), opens a file in 46
microseconds instead of 11, and does not report the device that detects loops of links.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from ..errors import SourceError, SourceRejected
from .images import kind_suffix
from .options import query_options

MOST_BYTES = 2**29
"""Larger files are rejected before they fill the memory."""

_MANY = 10_000  # fsspec's cache keeps listings of remote folders with at most this number of entries
_BLOCK = 4096  # bytes
_LONGEST_PATH = 4096  # characters


def is_remote(text: str) -> bool:
    """Whether fsspec opens a path: ``s3://bucket/x``, ``simplecache::s3://bucket/x``."""
    return "://" in text or "::" in text


def is_text(name: str) -> bool:
    """Whether a file name can be an id. Names that are not UTF-8 on disk can be neither hashed nor written as JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Store:
    """A folder of files. All paths are relative to it, with ``/`` between parts.

    Attributes:
        root: path of the folder.
        remote: the fsspec file system; None for this machine.
    """

    root: str
    remote: Any = None

    def __str__(self) -> str:
        return str(self.remote.unstrip_protocol(self.root)) if self.remote else self.root

    def path(self, relative: str) -> str:
        """The full path of a file. Raises SourceRejected if it might be outside the folder."""
        if relative.startswith("/") or "\0" in relative or ".." in relative.split("/"):
            raise SourceRejected("file missing")
        return f"{self.root.rstrip('/')}/{relative}"

    def relative(self, path: object) -> str:
        """A path that a table gives, alone or in a list of one, relative to the folder. It may be absolute.

        Raises:
            SourceRejected: it is no path, or not below the folder.
        """
        path = path[0] if isinstance(path, list) and len(path) == 1 else path
        if not isinstance(path, str) or not 0 < len(path) <= _LONGEST_PATH or "\0" in path or path.startswith("data:"):
            raise SourceRejected("not a path")
        if not is_text(path):
            raise SourceRejected("name is not Unicode")
        path = path.removeprefix("file://" if path.startswith("file:///") else "")
        path = path.removeprefix(f"{self}/").removeprefix(f"{self.root}/")
        if not self.remote and path.startswith("/"):  # by another name, through a link
            folder, _, name = path.rpartition("/")
            path = os.path.relpath(f"{os.path.realpath(folder)}/{name}", os.path.realpath(self.root))
        path = posixpath.normpath(path) if ".." in path.split("/") else path
        if path.startswith(("/", "../")) or "://" in path:
            raise SourceRejected("path not below the folder")
        return path

    def open(self, relative: str) -> BinaryIO:
        """A file, open for reading and seeking. Raises the exceptions of the file system."""
        path = self.path(relative)
        return self.remote.open(path, "rb") if self.remote else open(path, "rb")

    def read(self, relative: str, *, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of a file, or at most ``size`` bytes from ``start`` on.

        Raises:
            SourceRejected: "file missing", "file not readable" or "file too large".
        """
        path, most = self.path(relative), MOST_BYTES + 1 if size is None else size
        try:
            if self.remote:
                content = bytes(self.remote.cat_file(path, start=start, end=start + most))
                if len(content) > most:  # the server does not support range requests
                    content = content[start : start + most]
            else:
                with open(path, "rb") as file:
                    file.seek(start)
                    # Python requests memory for all that might be read, which takes longer than reading a small file.
                    left = os.fstat(file.fileno()).st_size - start
                    content = file.read(most if left <= 0 else min(most, left))
        except (FileNotFoundError, NotADirectoryError) as err:
            hint = ": its path has backslashes" if "\\" in relative else ""
            raise SourceRejected(f"file missing{hint}") from err
        except Exception as err:  # each file system raises its own exceptions
            raise SourceRejected("file not readable") from err
        if len(content) > MOST_BYTES:
            raise SourceRejected("file too large")
        return content

    def kind(self, relative: str) -> str:
        """``": Git LFS pointer file"`` for a file that is none of tables or tar files; see ``images.kind_suffix``."""
        with suppress(Exception), self.open(relative) as file:  # each file system raises its own exceptions
            return kind_suffix(file.read(64))
        return ""

    def stamp(self, relative: str) -> str:
        """Size and modification time of a file, or what a remote file system has instead. Raises its exceptions."""
        path = self.path(relative)
        if self.remote:
            return f"{self.remote.ukey(path)} {self.remote.size(path)}"
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns}"

    def fingerprint(self, relative: str, *, blocks: int) -> str:
        """The size of a local file, and a hash of blocks of 4 KiB spread evenly from its start to its end.

        For a remote file, its ``stamp``; for a file that cannot be read, the type of the exception.

        Args:
            relative: path of the file.
            blocks: their number; 0 for the size alone.
        """
        try:
            if self.remote:
                return self.stamp(relative)
            path, total = self.path(relative), hashlib.sha256()
            if not blocks:
                return str(os.stat(path).st_size)
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                for start in sorted({max(0, size - _BLOCK) * k // (blocks - 1) for k in range(blocks)}):
                    file.seek(start)
                    total.update(file.read(_BLOCK))
            return f"{size} {total.hexdigest()}"
        except Exception as err:  # each file system raises its own exceptions
            return type(err).__name__

    def files(self, skipped: Counter[str]) -> Iterator[str]:
        """The paths of the files below the folder, sorted; ``skipped`` counts the entries left out, by reason.

        The names of one folder per level are in memory. Links to folders are followed, each folder once. Names that
        begin with a dot are left out: file managers use them for thumbnails and metadata.
        """
        seen: set[tuple[int, int]] = set()

        def names(prefix: str) -> list[str]:
            return sorted(self.names(prefix, skipped, seen), reverse=True)

        folders = [("", left := names(""), len(left))]
        while folders:
            prefix, left, count = folders[-1]
            if not left:
                folders.pop()
                if self.remote and count > _MANY:
                    self.remote.invalidate_cache(self.path(prefix).rstrip("/"))
            elif (name := left.pop()).endswith("/"):
                folders.append((prefix + name, below := names(prefix + name), len(below)))
            else:
                yield prefix + name

    def names(self, prefix: str, skipped: Counter[str], seen: set[tuple[int, int]] | None = None) -> Iterator[str]:
        """The names in one folder, in any order.

        A folder's name ends with a slash, so that it sorts where the paths below it belong.

        Args:
            prefix: path of the folder, with a slash at the end; ``""`` for the folder of this object.
            skipped: counts the entries left out, by reason.
            seen: devices and inodes of local folders that have been listed; such a folder is empty.
        """
        seen = set() if seen is None else seen
        found = self._remote_names(prefix, skipped) if self.remote else self._local_names(prefix, skipped, seen)
        return _usable(found, skipped)

    def _local_names(self, prefix: str, skipped: Counter[str], seen: set[tuple[int, int]]) -> Iterator[str]:
        try:
            status = os.stat(folder := os.path.join(self.root, prefix))
            if (status.st_dev, status.st_ino) in seen:
                return
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        yield entry.name + "/"
                    elif entry.is_file() or entry.name.startswith("."):
                        yield entry.name
                    else:
                        skipped["not a file"] += 1
        except OSError:
            skipped["folder not readable"] += 1

    def _remote_names(self, prefix: str, skipped: Counter[str]) -> Iterator[str]:
        folder = self.path(prefix).rstrip("/")
        try:
            entries = self.remote.ls(folder, detail=True)
        except Exception as err:
            if not prefix:
                raise SourceError(f"cannot list {self}: {type(err).__name__}: {err}") from err
            skipped["folder not readable"] += 1
            return
        for entry in entries:
            path = entry["name"].rstrip("/")
            if path != folder:
                yield path.rpartition("/")[2] + ("/" if entry["type"] == "directory" else "")


def _usable(names: Iterable[str], skipped: Counter[str]) -> Iterator[str]:
    for name in names:
        if name.startswith("."):
            skipped["hidden"] += 1
        elif is_text(name):
            yield name
        else:
            skipped["name is not Unicode"] += 1


class Located(NamedTuple):
    """The parts of a URI.

    Attributes:
        store: the folder that the URI names, or the folder of the file that it names.
        name: of the file; ``""`` if the URI names a folder.
        options: name -> value.
    """

    store: Store
    name: str
    options: dict[str, str]


def locate(uri: str, scheme: str, *, options: Iterable[str] = (), files: tuple[str, ...] = ()) -> Located | None:
    """The parts of a URI, or None if it has another scheme.

    The path is taken literally, so that spaces, ``%`` and any script need no encoding. If nothing exists under that
    name, percent-encoding is undone (``%20``, and ``%3F`` for a question mark). ``~`` is the home folder, and
    ``///path`` is ``/path``. Whether a remote path exists is found when it is read.

    Args:
        uri: ``SCHEME:PATH?OPTIONS``.
        scheme: of the source.
        options: names of the options that the source has.
        files: extensions of files that the URI may name instead of a folder.

    Raises:
        SourceError: an option is unknown or empty, or the path is missing or neither a folder nor such a file.
    """
    found, _, rest = uri.partition(":")
    if found != scheme:
        return None
    text, _, query = rest.partition("?")
    given = query_options(uri, query, known=options)
    if empty := next((key for key, value in given.items() if not value), ""):
        raise SourceError(f"image source {uri!r}: option {empty!r} is empty")
    if not text:
        example = f"{scheme}:/data/train{files[0] if files else ''}"
        raise SourceError(f"image source {uri!r}: the path is missing. Write it after the colon, for example {example}")
    if "\0" in text or "%00" in text:
        raise SourceError(f"image source {uri!r}: a path cannot contain a null character")
    located = Located(*(_remote if is_remote(text) else _local)(uri, text, files), given)
    if located.name and "files" in given:
        raise SourceError(f"image source {uri!r}: files has no effect, because the URI names a file")
    return located


def _local(uri: str, text: str, files: tuple[str, ...]) -> tuple[Store, str]:
    plain = text[2:] if text.startswith("///") else text
    path = Path(os.path.expanduser(plain))
    if not path.exists() and "%" in plain:
        path = Path(os.path.expanduser(unquote(plain)))
    is_file = path.name.lower().endswith(files)
    if path.is_dir():
        return Store(str(path.absolute())), ""
    if not path.exists():
        what = "file" if is_file else "folder"
        raise SourceError(f"image source {uri!r}: there is no {what} {str(path)!r}{_nearest(path)}")
    if is_file:
        return Store(str(path.parent.absolute())), path.name
    kinds = f" and has none of the extensions {', '.join(files)}" if files else ""
    raise SourceError(
        f"image source {uri!r}: {str(path)!r} is a file, not a folder{kinds}.\n"
        f"  use the folder that contains it: {str(path.parent)!r}"
    )


def _remote(uri: str, text: str, files: tuple[str, ...]) -> tuple[Store, str]:
    from fsspec.core import url_to_fs

    try:
        remote, path = url_to_fs(text)
    except Exception as err:  # an unknown protocol, or one whose package is not installed
        raise SourceError(f"image source {uri!r}: fsspec cannot open {text!r}: {err}") from err
    if files and path.lower().endswith(files):
        folder, _, name = path.rpartition("/")
        return Store(folder, remote), name
    return Store(path, remote), ""


def _nearest(path: Path) -> str:
    """A text that names the deepest folder of a path that exists."""
    absolute = path.absolute()
    for parent in absolute.parents:
        if parent.is_dir():
            return f".\n  {str(parent)!r} exists and has no {absolute.relative_to(parent).parts[0]!r} in it"
    return ""
