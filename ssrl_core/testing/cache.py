"""Files that the kit keeps between runs, in the folder ``check`` of ``SSRL_CACHE``; see ``keys`` for their names."""

from __future__ import annotations

import hashlib
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files import cache_folder, sweep, written_whole

LIMIT = 2**30
"""Bytes; beyond it, the files that were not used for the longest time are removed."""


def default_folder() -> Path | None:
    """The folder, made if needed; None if it cannot be used, or ``SSRL_CHECK_CACHE`` is 0.

    Its files are unpickled, so nobody else may own the folder or write into it.
    """
    folder = cache_folder() / "check"
    if os.environ.get("SSRL_CHECK_CACHE") == "0":
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = folder.stat()
    except OSError:
        return None
    is_ours = facts.st_uid == os.getuid() and not facts.st_mode & 0o022
    return folder if is_ours and os.access(folder, os.W_OK) else None


def load(path: Path) -> Any:
    """The content of a file that ``save`` wrote; None if there is none, or it is damaged."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return pickle.loads(content[32:]) if hashlib.sha256(content[32:]).digest() == content[:32] else None


def save(path: Path, content: object) -> None:
    """Write content for ``load``; nothing if the disk is full."""
    data = pickle.dumps(content)
    with suppress(OSError), written_whole(path) as file:
        file.write(hashlib.sha256(data).digest() + data)


def prune(folder: Path) -> None:
    """Remove files of killed processes, and what exceeds ``LIMIT``."""
    with suppress(OSError):  # another process may remove the same files
        sweep(folder)
        total = 0
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
            total += path.stat().st_size
            if total > LIMIT:
                path.unlink()
