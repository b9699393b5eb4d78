"""Whether a folder has the data of a benchmark, all of them, and as published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from ..errors import SSRLError
from .contract import Benchmark, BenchmarkError, Recipe, Row


def check(benchmark: Benchmark, folder: Path, *, checksums: bool = False) -> tuple[list[Row], list[str]]:
    """The rows of a folder, and sentences on how it differs from the published data.

    Args:
        benchmark: the benchmark.
        folder: with its data.
        checksums: compare the checksums that are known. This reads all of the files.

    Raises:
        BenchmarkError: files are missing, or are not those of the benchmark.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: this folder does not exist. {benchmark.title}: {benchmark.source}")
    notes = []
    for path, md5 in data_files(benchmark, folder).items():
        if checksums and md5 and (found := _md5(path)) != md5:
            notes.append(f"{path}: MD5 {found} instead of {md5}: another version, or damaged")
    rows = read_rows(benchmark, folder, "standard")
    if benchmark.questions is not None and len(rows) != benchmark.questions:
        notes.append(f"{len(rows):,} questions of {benchmark.title} instead of {benchmark.questions:,}")
    return rows, notes


def data_files(benchmark: Benchmark, folder: Path) -> dict[Path, str | None]:
    """Files of a benchmark -> MD5, or None if it is not known. Raises BenchmarkError if one is missing."""
    found: dict[Path, str | None] = {}
    for patterns, md5 in benchmark.files.items():
        first, *others = patterns.split("|")
        paths = [path for pattern in (first, *others) for path in sorted(folder.glob(pattern))]
        if not paths:
            raise BenchmarkError(
                f"{folder} is not {benchmark.title}: there is no {' or '.join((first, *others))}. It has "
                f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'no files'}. Get it: {benchmark.source}"
            )
        found.setdefault(paths[0], md5 if paths[0].match(first) else None)
    return found


def read_rows(benchmark: Benchmark, folder: Path, recipe: Recipe) -> list[Row]:
    """All rows of a folder. Raises BenchmarkError if it has none, or they are not those of the benchmark."""
    try:
        rows = list(benchmark.rows(folder, recipe))
    except SSRLError:
        raise
    except Exception as err:  # anything that the data of another version may cause
        raise BenchmarkError(
            f"{folder}: not readable as {benchmark.title} ({type(err).__name__}: {err}). Is it another version of the "
            f"data, or damaged? {benchmark.title}: {benchmark.source}"
        ) from err
    if not rows:
        raise BenchmarkError(f"{folder}: there are no questions of {benchmark.title}. Download it again")
    known = set[str]()
    for row in rows:
        letters = tuple(ascii_uppercase[: len(row.options)])
        if letters and row.truth not in letters:
            raise BenchmarkError(
                f"{folder}: the answer {row.truth!r} of question {row.id!r} of {benchmark.title} is none of its "
                f"options {', '.join(letters)}. Is it another version of the data?"
            )
        if row.id in known:
            raise BenchmarkError(f"{folder}: question {row.id!r} of {benchmark.title} occurs twice")
        known.add(row.id)
    return rows


def missing_media(rows: Sequence[Row]) -> list[str]:
    """The files of images and videos that rows name and that do not exist, sorted."""
    missing = set()
    for row in rows:
        for value in getattr(row.images, "args", ()):
            paths = value if isinstance(value, tuple) else (value,)
            missing |= {str(path) for path in paths if isinstance(path, Path) and not path.is_file()}
    return sorted(missing)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
