"""Files that appear under their names only when they are complete and on the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A new file, open for writing, that gets its name when the block ends without an error."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_name(path: Path) -> Path:
    """A path in the same folder that no other process uses, on this or any other machine."""
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a path is one of ``temporary_name``."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, if it exists."""
    for path in filter(is_temporary, folder.iterdir() if folder.is_dir() else ()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync(path: Path) -> None:
    """Write the content of a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """The folder of what is expensive to make: ``SSRL_CACHE``, by default ``ssrl`` in the user's cache folder."""
    chosen = os.environ.get("SSRL_CACHE")
    return Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ssrl").expanduser()
