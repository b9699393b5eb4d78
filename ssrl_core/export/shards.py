"""One shard: a function of the mix and its number, and a file that is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import sha256, sync, temporary_name, written_whole
from ..mix import Mix
from ..mix.schedule import SplitName
from .rows import encode, leaves, row, schema

_ROW_GROUP = 100  # rows held in memory at a time
_MOST_INFLATED = 100  # times the size of a shard that its pages may claim to hold

OnProgress = Callable[[int], None]
"""Told the number of samples done so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker knows of an export.

    Attributes:
        folder: of the shards; absolute.
        split: ``"train"`` or ``"heldout"``.
        samples: number of samples, of which a shard has ``shard_size``.
        jpeg: quality of JPEG images; None for PNG.
        files: whether images are files next to the shards.
        plan: digest of the plan.
    """

    folder: Path
    split: SplitName
    samples: int
    shard_size: int
    jpeg: int | None
    files: bool
    plan: str

    @property
    def shards(self) -> int:
        """Their number."""
        return -(-self.samples // self.shard_size)

    def indices(self, number: int) -> range:
        """The samples of a shard."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, self.samples))

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.split}-{number:05}-of-{self.shards:05}.parquet"

    def images(self, number: int) -> Path:
        """The folder for the images of a shard, where they are files."""
        return self.folder / "images" / f"{number:05}"


def make_shard(job: Job, number: int, mix: Mix, *, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
    """Write a shard unless it is there, whole and of the same plan; its facts.

    The facts are ``file``, ``bytes``, ``sha256``, ``rows``, ``counts`` (``task@level`` -> rows) and ``rejected`` (task
    -> reason -> images). All but the first three stand in the footer of the file as well.
    """
    path = job.path(number)
    facts = _finished(job, number)
    if facts is None:
        facts = _write(job, number, mix, on_progress=on_progress)
    on_progress(len(job.indices(number)))
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), **facts}


def _finished(job: Job, number: int) -> dict[str, Any] | None:
    """The facts of a shard that is there; None where it is not, or is damaged. Reads it all: pages have checksums.

    Whatever lies there under its name is not trusted: nothing in it is run, nor read into memory without bound.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = hashlib.sha256()
    path = job.path(number)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            footer = file.metadata
            facts: dict[str, Any] = json.loads(footer.metadata[b"ssrl"])
            size = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
            expected = job.plan, number, len(job.indices(number))
            if (facts["plan"], facts["shard"], facts["rows"]) != expected or footer.num_rows != expected[2]:
                return None
            if size > _MOST_INFLATED * path.stat().st_size or not file.schema_arrow.equals(schema(files=job.files)):
                return None
            for batch in file.iter_batches(_ROW_GROUP):
                if job.files:
                    for name in batch.column("images").flatten().to_pylist():
                        images.update(_own_image(job, number, name).read_bytes())
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return facts if not job.files or facts["images"] == images.hexdigest() else None


def _own_image(job: Job, number: int, name: str) -> Path:
    """The path of an image that a shard names. Raises ValueError for anything but a file in the shard's own folder."""
    path = Path(name)
    if path.parent != job.images(number) or not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(name)
    return path


def _write(job: Job, number: int, mix: Mix, *, on_progress: OnProgress) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = schema(files=job.files)
    # Images are compressed already, and no two are alike.
    columns = [name for name in leaves(fields) if not name.startswith("images.")]
    before = {task: Counter(reasons) for task, reasons in mix.rejections.items()}
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    indices = job.indices(number)
    with _image_folder(job, number) as folder, written_whole(job.path(number)) as file:
        with pq.ParquetWriter(
            file,
            fields,
            compression={name: "zstd" if name in columns else "none" for name in leaves(fields)},
            use_dictionary=columns,
            write_statistics=columns,
            write_page_checksum=True,
        ) as writer:
            for start in range(0, len(indices), _ROW_GROUP):
                rows = []
                for index in indices[start : start + _ROW_GROUP]:
                    example = mix[index]
                    counts[f"{example.recipe.task}@{example.recipe.level}"] += 1
                    images = [encode(image, jpeg=job.jpeg) for image in example.sample.images]
                    if folder is None:
                        stored: list[Any] = [{"bytes": image} for image in images]
                    else:
                        stored = []
                        for at, image in enumerate(images):
                            name = f"{index:08}-{at}.{'png' if job.jpeg is None else 'jpg'}"
                            (folder / name).write_bytes(image)
                            digest.update(image)
                            stored.append(str(job.images(number) / name))
                    rows.append(row(mix, index, example, images=stored))
                    on_progress(index - indices.start + 1)
                writer.write_table(pa.Table.from_pylist(rows, schema=fields))
            rejected = {task: dict(sorted((n - before[task]).items())) for task, n in mix.rejections.items()}
            facts: dict[str, Any] = {
                "plan": job.plan,
                "shard": number,
                "rows": len(indices),
                "counts": dict(sorted(counts.items())),
                "rejected": {task: reasons for task, reasons in rejected.items() if reasons},
            }
            if folder is not None:
                facts["images"] = digest.hexdigest()
            writer.add_key_value_metadata({"ssrl": json.dumps(facts)})
        if folder is not None:
            _name_images(job, number, folder)
    return facts


@contextmanager
def _image_folder(job: Job, number: int) -> Iterator[Path | None]:
    """A temporary folder for the images of a shard; None where they are embedded."""
    if not job.files:
        yield None
        return
    folder = temporary_name(job.images(number))
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name_images(job: Job, number: int, folder: Path) -> None:
    """Bring the images of a shard onto the disk and give them their place, just before the shard gets its name."""
    final = job.images(number)
    if final.exists():  # of an earlier start that was killed between the two
        shutil.rmtree(final)
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    os.replace(folder, final)
    sync(final.parent)
