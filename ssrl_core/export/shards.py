"""One shard: a file that is complete or absent, and depends on the mix and its number only."""

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
from .rows import Layout, encode, leaves, row, schema

_ROW_GROUP = 100  # rows held in memory at a time
_MAX_INFLATION = 100  # limit of the decompressed size of a shard, relative to its file size

OnProgress = Callable[[int], None]
"""Called with the number of samples done so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of an export, for the workers.

    Attributes:
        folder: folder of the shards; absolute.
        split: split of the mix.
        samples: number of samples in all.
        shard_size: number of samples in a shard; the last shard may have fewer.
        jpeg: quality of JPEG images; None for PNG.
        files: True if images are files next to the shards.
        plan: digest of the plan.
        layout: whose columns the rows have.
    """

    folder: Path
    split: SplitName
    samples: int
    shard_size: int
    jpeg: int | None
    files: bool
    plan: str
    layout: Layout = "verl"

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.shard_size)

    def indices(self, number: int) -> range:
        """The indices of the samples of a shard."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, self.samples))

    def path(self, number: int) -> Path:
        """The path of a shard."""
        return self.folder / f"{self.split}-{number:05}-of-{self.shards:05}.parquet"

    def images(self, number: int) -> Path:
        """The folder for the image files of a shard."""
        return self.folder / "images" / f"{number:05}"


def make_shard(job: Job, number: int, mix: Mix, *, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
    """The facts of a shard, after writing it unless it is complete and of the same plan.

    The facts are ``file``, ``bytes``, ``sha256``, ``rows``, ``counts`` (``task@level`` -> rows) and ``rejected`` (task
    -> reason -> images). The footer of the file contains all but the first three.
    """
    path = job.path(number)
    facts = _finished(job, number)
    if facts is None:
        facts = _write(job, number, mix, on_progress=on_progress)
    on_progress(len(job.indices(number)))
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), **facts}


def _finished(job: Job, number: int) -> dict[str, Any] | None:
    """The facts of a finished shard; None if it is missing, damaged, or of another plan.

    Reads the whole file, since pages have checksums. The file is not trusted: no code in it is executed, and the
    memory that it can occupy is bounded.
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
            fields = schema(files=job.files, layout=job.layout)
            if size > _MAX_INFLATION * path.stat().st_size or not file.schema_arrow.equals(fields):
                return None
            for batch in file.iter_batches(_ROW_GROUP):
                if job.files:
                    for name in batch.column("images").flatten().to_pylist():
                        images.update(_own_image(job, number, name).read_bytes())
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return facts if not job.files or facts["images"] == images.hexdigest() else None


def _own_image(job: Job, number: int, name: str) -> Path:
    """The path of an image that a shard names. Raises ValueError unless it is a file in the shard's image folder."""
    path = Path(name)
    if path.parent != job.images(number) or not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(name)
    return path


def _write(job: Job, number: int, mix: Mix, *, on_progress: OnProgress) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = schema(files=job.files, layout=job.layout)
    # Columns of images get no compression and no dictionary: images are compressed already, and all differ.
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
                    rows.append(row(mix, index, example, images=stored, layout=job.layout))
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
    """A temporary folder for the images of a shard; None if images are embedded."""
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
    """Flush the images of a shard to disk and move them to their folder, just before the shard is renamed."""
    final = job.images(number)
    if final.exists():  # left by a process that was killed between the two steps
        shutil.rmtree(final)
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    os.replace(folder, final)
    sync(final.parent)
