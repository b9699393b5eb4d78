"""Where the files of a source lie: a folder of this machine, or of whatever fsspec reads.

``s3://bucket/photos``, ``gs://...``, ``hf://datasets/name``, ``https://host/folder``, ``memory://x`` and chains like
``simplecache::s3://bucket/photos`` go through fsspec, which takes credentials from the environment and from its own
configuration files. Everything else is a path of this machine, and needs no fsspec.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from ..errors import SourceError, SourceRejected

MOST_BYTES = 2**29
"""Files that are larger are rejected before they fill the memory."""

_MANY = 10_000  # entries of a remote folder that are not worth remembering


def is_remote(text: str) -> bool:
    """Whether a path is one for fsspec: ``s3://bucket/x``, ``simplecache::s3://bucket/x``."""
    return "://" in text or "::" in text


@dataclass(frozen=True)
class Store:
    """A folder to read files from; all paths are relative to it, with ``/`` between parts.

    Attributes:
        root: the folder, as this machine or ``remote`` calls it.
        remote: the fsspec file system; None for this machine.
    """

    root: str
    remote: Any = None

    def __str__(self) -> str:
        return str(self.remote.unstrip_protocol(self.root)) if self.remote else self.root

    def path(self, relative: str) -> str:
        """The whole path of a file. Raises SourceRejected for what would lead out of the folder."""
        if relative.startswith("/") or "\0" in relative or ".." in relative.split("/"):
            raise SourceRejected("file missing")
        return f"{self.root.rstrip('/')}/{relative}"

    def open(self, relative: str) -> BinaryIO:
        """A file, to be read from the start and at any place. Raises whatever the file system raises."""
        path = self.path(relative)
        return self.remote.open(path, "rb") if self.remote else open(path, "rb")

    def read(self, relative: str, *, start: int = 0, size: int | None = None) -> bytes:
        """A file's bytes, or ``size`` of them from ``start`` on (fewer where it ends before).

        Raises:
            SourceRejected: "file missing", "file not readable" or "file too large".
        """
        path, most = self.path(relative), MOST_BYTES + 1 if size is None else size
        try:
            if self.remote:
                content = bytes(self.remote.cat_file(path, start=start, end=start + most))
                if len(content) > most:  # from a server that cannot give a part of a file
                    content = content[start : start + most]
            else:
                with open(path, "rb") as file:
                    file.seek(start)
                    content = file.read(most)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise SourceRejected("file missing") from err
        except Exception as err:  # each file system has errors of its own
            raise SourceRejected("file not readable") from err
        if len(content) > MOST_BYTES:
            raise SourceRejected("file too large")
        return content

    def stamp(self, relative: str) -> str:
        """Size and age of a file, which change when it is written anew. Raises whatever the file system raises."""
        path = self.path(relative)
        if self.remote:
            return f"{self.remote.ukey(path)} {self.remote.size(path)}"
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns}"

    def files(self, skipped: Counter[str]) -> Iterator[str]:
        """The files below the folder, sorted; ``skipped`` counts what is left out, by reason.

        No more than one folder's names is in memory. Links to folders are followed, once each. Names that begin with a
        dot are left out: they are thumbnails and metadata of file managers, some with the extension of an image.
        """
        seen: set[tuple[int, int]] = set()

        def names(prefix: str) -> Iterator[str]:
            list_names = self._remote_names if self.remote else self._local_names
            # A folder with its slash sorts where the paths below it belong.
            return iter(sorted(_usable(list_names(prefix, skipped, seen), skipped)))

        pending = [("", names(""))]
        while pending:
            prefix, rest = pending[-1]
            name = next(rest, None)
            if name is None:
                pending.pop()
            elif name.endswith("/"):
                pending.append((prefix + name, names(prefix + name)))
            else:
                yield prefix + name

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

    def _remote_names(self, prefix: str, skipped: Counter[str], _seen: object) -> Iterator[str]:
        folder = self.path(prefix).rstrip("/")
        try:
            entries = self.remote.ls(folder, detail=True)
        except Exception as err:
            if not prefix:
                raise SourceError(f"cannot list {self}: {type(err).__name__}: {err}") from err
            skipped["folder not readable"] += 1
            return
        if len(entries) > _MANY:
            self.remote.invalidate_cache(folder)
        for entry in entries:
            path = entry["name"].rstrip("/")
            if path != folder:
                yield path.rpartition("/")[2] + ("/" if entry["type"] == "directory" else "")


def _usable(names: Iterable[str], skipped: Counter[str]) -> Iterator[str]:
    for name in names:
        if name.startswith("."):
            skipped["hidden"] += 1
        elif not _is_text(name):
            skipped["name is not Unicode"] += 1
        else:
            yield name


def _is_text(name: str) -> bool:
    """Whether a file name can be an id: names that are not UTF-8 on disk can be neither hashed nor written as JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def locate(uri: str, text: str, *, example: str, files: tuple[str, ...] = ()) -> tuple[Store, str]:
    """The folder that a URI names, and the name of the file in it, or ``""`` where the URI names the folder itself.

    ``text`` is taken as it is written, so that spaces, ``%`` and any script need no encoding; where nothing exists
    under that name, percent-encoding is undone (``%20``, and ``%3F`` for a question mark). ``~`` is the home folder,
    and ``///path`` is ``/path``. Whether something remote exists turns out when it is read.

    Args:
        uri: for error messages.
        text: what stands between the scheme and the options.
        example: of such a URI, for error messages.
        files: the extensions of files that may be named instead of a folder.

    Raises:
        SourceError: nothing is there, or it is neither a folder nor such a file.
    """
    if not text:
        raise SourceError(f"image source {uri!r}: names no folder. Write it after the colon, for example {example}")
    if "\0" in text or "%00" in text:
        raise SourceError(f"image source {uri!r}: a path cannot contain a null character")
    if is_remote(text):
        return _locate_remote(uri, text, files=files)
    plain = text[2:] if text.startswith("///") else text
    path = Path(plain).expanduser()
    if not path.exists() and "%" in plain:
        path = Path(unquote(plain)).expanduser()
    if not path.exists():
        what = "file" if path.suffix.lower() in files else "folder"
        raise SourceError(f"image source {uri!r}: there is no {what} {str(path)!r}{_nearest(path)}")
    if path.is_dir():
        return Store(str(path.absolute())), ""
    if path.suffix.lower() in files:
        return Store(str(path.parent.absolute())), path.name
    kinds = f", nor a file of the kind {', '.join(files)}" if files else ""
    raise SourceError(
        f"image source {uri!r}: {str(path)!r} is a file, not a folder{kinds}.\n"
        f"  name the folder it is in: {str(path.parent)!r}"
    )


def _locate_remote(uri: str, text: str, *, files: tuple[str, ...]) -> tuple[Store, str]:
    from fsspec.core import url_to_fs

    try:
        remote, path = url_to_fs(text)
    except Exception as err:  # an unknown protocol, or one whose package is not installed
        raise SourceError(f"image source {uri!r}: fsspec cannot open {text!r}: {err}") from err
    if path.lower().endswith(files or ("\0",)):
        folder, _, name = path.rpartition("/")
        return Store(folder, remote), name
    return Store(path, remote), ""


def _nearest(path: Path) -> str:
    """What exists of a path that does not."""
    absolute = path.absolute()
    for parent in absolute.parents:
        if parent.is_dir():
            return f".\n  {str(parent)!r} exists and has no {absolute.relative_to(parent).parts[0]!r} in it"
    return ""
