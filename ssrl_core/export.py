"""A mix as Parquet: rows that verl's stock dataset reads, in shards that are each a function of the mix and a number.

A row is the mix's own sample, bit for bit; its recipe stands with it. A damaged image costs nothing: the next attempt
draws another one. A sample that a plugin fails to make costs its row, which is counted with the reason and left out;
what stands at the other indices does not change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .errors import PluginFailed, SourceError
from .manifest import (
    MIX,
    ExportError,
    digest,
    locked,
    plan_of,
    settle,
    sha256,
    sync_folder,
    temporaries,
    write_manifest,
    written_whole,
)
from .mix import Example, Mix, load_mix
from .schedule import SplitName
from .score import Key
from .timelimit import TimeLimitExceeded, call_within

logger = logging.getLogger(__name__)

SHARD_SIZE = 1000
SAMPLE_LIMIT = 120.0
"""Seconds that a sample may take; only a plugin that hangs needs more."""

_ROW_GROUP = 100  # rows held in memory at a time
_MOST_FAILURES = 10  # of one task in a shard, if they are also more than half
_PATIENCE = 3  # times that workers may die one after the other without a finished shard


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


OnProgress = Callable[[int], None]
"""Told the number of samples done so far."""


def export(
    mix_path: Path,
    folder: Path,
    *,
    samples: int | None = None,
    split: SplitName = "train",
    workers: int = 1,
    shard_size: int = SHARD_SIZE,
    jpeg: int | None = None,
    files: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Export the first samples of a mix, or finish an export that was interrupted; its manifest.

    Args:
        mix_path: the mix file.
        folder: for the shards; a new one, or that of the same export.
        samples: how many; the whole split where absent.
        split: ``"train"`` or ``"heldout"``.
        workers: processes; 1 works in this one. The content of the shards does not depend on it.
        shard_size: samples of a shard.
        jpeg: quality of JPEG images in [1, 100]; PNG, which keeps every pixel, where absent.
        files: keep images as files below ``folder/images``, which must then stay where it is.
        on_progress: told how many samples are done, and of how many.

    Raises:
        ExportError: the folder holds something else, is in use or cannot be written; workers keep dying; most samples
            of a task fail.
        MixError, PluginError, SourceError: as for ``load_mix``.
    """
    mix = load_mix(mix_path, split=split)
    samples = len(mix) if samples is None else samples
    if not 1 <= samples <= len(mix):
        raise ExportError(
            f"{samples} samples of the {split} split of {mix_path}: it has {len(mix)}. "
            f"Raise {'samples' if split == 'train' else 'heldout.samples'} in the mix, or ask for fewer"
        )
    folder = folder.absolute()
    images = "png" if jpeg is None else f"jpeg {jpeg}"
    plan = plan_of(mix, samples=samples, shard_size=shard_size, images=f"{images} in {folder}" if files else images)
    job = Job(folder, split, samples, shard_size, jpeg, files, digest(plan))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            settle(folder, plan, mix)
            try:
                _sweep(folder)
                make = _make_here if workers == 1 else _make_in_workers
                shards = make(job, workers=workers, on_progress=lambda done: on_progress(done, samples))
            finally:
                with suppress(OSError):
                    _sweep(folder)
            return write_manifest(folder, plan, shards)
    except OSError as err:
        raise ExportError(
            f"cannot write into {folder}: {err.strerror or err}. What is finished is kept, and the same command goes on"
        ) from err


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half done."""
    for path in (*temporaries(folder), *temporaries(folder / "images")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_here(job: Job, *, workers: int, on_progress: OnProgress) -> list[dict[str, Any]]:
    mix = load_mix(job.folder / MIX, split=job.split)
    shards = []
    for number in range(job.shards):
        before = number * job.shard_size
        shards.append(make_shard(job, number, mix, on_progress=partial(_after, before, on_progress)))
    return shards


def _after(before: int, on_progress: OnProgress, done: int) -> None:
    on_progress(before + done)


def _make_in_workers(job: Job, *, workers: int, on_progress: OnProgress) -> list[dict[str, Any]]:
    context = get_context("spawn")  # the plugins' libraries have threads, which a fork would not carry over
    progress = context.RawArray("q", job.shards)
    made: dict[int, dict[str, Any]] = {}
    deaths = 0
    while pending := [number for number in range(job.shards) if number not in made]:
        # Workers end when the other end of this pipe is closed, also where that is because this process was killed.
        lifeline, release = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(
            min(workers, len(pending)), mp_context=context, initializer=_enter, initargs=(job, progress, lifeline)
        )
        try:
            futures = {pool.submit(_work, number): number for number in pending}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    made[futures[future]] = future.result()
                    deaths = 0
                on_progress(sum(progress))
        except BrokenProcessPool as err:
            deaths += 1
            if deaths == _PATIENCE:
                raise ExportError(
                    f"a worker died {_PATIENCE} times in a row before a shard was finished: was it killed for lack of "
                    f"memory? Try fewer workers than {workers}. What is finished is kept"
                ) from err
            logger.warning("a worker died; its shards are made anew")
        finally:
            release.close()
            pool.shutdown(cancel_futures=True)
            lifeline.close()
    return [made[number] for number in range(job.shards)]


@dataclass
class _Worker:
    job: Job
    progress: Any
    mix: Mix | None = None


_worker: _Worker


def _enter(job: Job, progress: Any, lifeline: Connection) -> None:
    import signal

    global _worker
    _worker = _Worker(job, progress)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and closes the lifeline

    def watch() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(number: int) -> dict[str, Any]:
    def tell(done: int) -> None:
        _worker.progress[number] = done

    if _worker.mix is None:
        _worker.mix = load_mix(_worker.job.folder / MIX, split=_worker.job.split)
    return make_shard(_worker.job, number, _worker.mix, on_progress=tell)


def make_shard(job: Job, number: int, mix: Mix, *, on_progress: OnProgress = lambda done: None) -> dict[str, Any]:
    """Write a shard unless it is there, whole and of the same plan; its facts.

    The facts are ``file``, ``bytes``, ``sha256``, ``rows``, ``counts`` (``task@level`` -> rows), ``rejected`` (task ->
    reason -> images) and ``lost`` (task -> reason -> samples, and the first one's message). All but the first three
    stand in the footer of the file as well.
    """
    path = job.path(number)
    facts = _finished(job, number)
    if facts is None:
        facts = _write(job, number, mix, on_progress=on_progress)
    on_progress(len(job.indices(number)))
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), **facts}


def _finished(job: Job, number: int) -> dict[str, Any] | None:
    """The facts of a shard that is there; None where it is not, or is damaged. Reads it all: pages have checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = hashlib.sha256()
    try:
        with pq.ParquetFile(job.path(number), page_checksum_verification=True) as file:
            facts: dict[str, Any] = json.loads(file.metadata.metadata[b"ssrl"])
            rows = 0
            for batch in file.iter_batches(_ROW_GROUP):
                rows += batch.num_rows
                if job.files:
                    for path in batch.column("images").flatten().to_pylist():
                        images.update(Path(path).read_bytes())
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    same = (facts["plan"], facts["shard"], facts["rows"]) == (job.plan, number, rows)
    return facts if same and (not job.files or facts["images"] == images.hexdigest()) else None


def _write(job: Job, number: int, mix: Mix, *, on_progress: OnProgress) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa, files=job.files)
    before = {task: Counter(reasons) for task, reasons in mix.rejections.items()}
    shard = _Shard(job, number, mix)
    indices = job.indices(number)
    with _image_folder(job, number) as folder, written_whole(job.path(number)) as file:
        # Images are compressed already, and no two are alike.
        columns = [name for name in _leaves(schema) if not name.startswith("images.")]
        with pq.ParquetWriter(
            file,
            schema,
            compression={name: "zstd" if name in columns else "none" for name in _leaves(schema)},
            use_dictionary=columns,
            write_statistics=columns,
            write_page_checksum=True,
        ) as writer:
            for start in range(0, len(indices), _ROW_GROUP):
                group = indices[start : start + _ROW_GROUP]
                rows = list(shard.rows(group, folder, tell=lambda index: on_progress(index - indices.start)))
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rejected = {task: dict(sorted((n - before[task]).items())) for task, n in mix.rejections.items()}
            facts = shard.facts() | {"rejected": {task: reasons for task, reasons in rejected.items() if reasons}}
            writer.add_key_value_metadata({"ssrl": json.dumps(facts)})
        if folder is not None:
            _name_images(job, number, folder)
    return facts


class _Shard:
    """The rows of one shard, and what is counted on the way."""

    def __init__(self, job: Job, number: int, mix: Mix) -> None:
        self._job, self._number, self._mix = job, number, mix
        self._counts: Counter[str] = Counter()
        self._tried: Counter[str] = Counter()
        self._lost: dict[str, dict[str, dict[str, Any]]] = {}
        self._images = hashlib.sha256()

    def rows(self, indices: Sequence[int], folder: Path | None, *, tell: OnProgress) -> Iterator[dict[str, Any]]:
        """A row for every index at which there is a sample."""
        for index in indices:
            task = self._mix.slot(index).task
            self._tried[task] += 1
            try:
                example = call_within(SAMPLE_LIMIT, partial(self._mix.__getitem__, index), owner=task)
            except MemoryError:
                raise
            except Exception as err:  # whatever a plugin of a task or a source raises
                self._lose(index, task, err)
            else:
                self._counts[f"{task}@{example.recipe.level}"] += 1
                images = [self._keep(encode(image, jpeg=self._job.jpeg)) for image in example.sample.images]
                yield row(self._mix, index, example, images=self._stored(images, index, folder))
            tell(index)

    def facts(self) -> dict[str, Any]:
        """What the shard has become, without its rejected images."""
        return {
            "plan": self._job.plan,
            "shard": self._number,
            "rows": self._counts.total(),
            "counts": dict(sorted(self._counts.items())),
            "lost": self._lost,
            "images": self._images.hexdigest(),
        }

    def _keep(self, image: bytes) -> bytes:
        self._images.update(image)
        return image

    def _stored(self, images: Sequence[bytes], index: int, folder: Path | None) -> list[Any]:
        """The images as a row has them: as bytes, or as names of files that were written into the folder."""
        if folder is None:
            return [{"bytes": image} for image in images]
        names = [f"{index:08}-{at}.{'png' if self._job.jpeg is None else 'jpg'}" for at in range(len(images))]
        for name, image in zip(names, images, strict=True):
            with open(folder / name, "wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())
        return [str(_images(self._job, self._number) / name) for name in names]

    def _lose(self, index: int, task: str, err: Exception) -> None:
        reasons = self._lost.setdefault(task, {})
        facts = reasons.setdefault(_reason(err), {"samples": 0, "first": f"sample {index}: {err}"[:1000]})
        facts["samples"] += 1
        failures = sum(facts["samples"] for facts in reasons.values())
        if failures >= _MOST_FAILURES and 2 * failures > self._tried[task]:
            raise ExportError(
                f"{failures} of the first {self._tried[task]} samples of {task!r} in shard {self._number} could not be "
                f"made; the last of them, sample {index}: {err}"
            ) from err


def _reason(err: Exception) -> str:
    """A constant phrase for a failure, by which it is counted."""
    if isinstance(err, TimeLimitExceeded):
        return f"not made within {SAMPLE_LIMIT:g} s"
    if isinstance(err, SourceError):
        return "no image could be used"
    cause = err.__cause__ if isinstance(err, PluginFailed) and err.__cause__ else err
    return f"{'plugin failed: ' if isinstance(err, PluginFailed) else ''}{type(cause).__name__}"


def row(mix: Mix, index: int, example: Example, *, images: list[Any]) -> dict[str, Any]:
    """A sample as verl's RLHFDataset reads it, with the recipe that rebuilds it."""
    recipe = example.recipe
    return {
        "data_source": f"{recipe.task}@{recipe.level}",
        "prompt": [{"role": "user", "content": example.prompt}],
        "images": images,
        "reward_model": {
            "style": "rule",
            "ground_truth": Key.of(example, format_weight=mix.config.format_weight).to_json(),
        },
        "extra_info": {
            "index": index,
            "split": recipe.split,
            "task": recipe.task,
            "level": recipe.level,
            "truth": example.sample.truth,
            "recipe": recipe.to_json(),
        },
    }


def encode(image: Any, *, jpeg: int | None) -> bytes:
    """A Pillow image as PNG, pixel for pixel, or as JPEG of that quality.

    OpenCV rather than Pillow: at nearly the same size its PNG takes half the time of Pillow's fastest.
    """
    import cv2
    import numpy as np

    pixels = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    extension, settings = (".png", []) if jpeg is None else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, jpeg])
    done, data = cv2.imencode(extension, pixels, settings)
    if not done:
        raise ExportError(f"OpenCV could not encode an image of {image.size} pixels as {extension}")
    return bytes(data.data)


def _schema(pa: Any, *, files: bool) -> Any:
    text = pa.string()
    information = {name: text for name in ("split", "task", "level", "truth", "recipe")}
    return pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "images": pa.list_(text if files else pa.struct({"bytes": pa.binary()})),
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct({"index": pa.int64(), **information}),
        }
    )


def _leaves(schema: Any) -> list[str]:
    """The names of the Parquet columns that the fields become, e.g. ``prompt.list.element.role``."""
    import pyarrow as pa

    def below(path: str, kind: Any) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for part in kind:
                yield from below(f"{path}.{part.name}", part.type)
        elif pa.types.is_list(kind):
            yield from below(f"{path}.list.element", kind.value_type)
        else:
            yield path

    return [leaf for part in schema for leaf in below(part.name, part.type)]


def _images(job: Job, number: int) -> Path:
    return job.folder / "images" / f"{number:05}"


@contextmanager
def _image_folder(job: Job, number: int) -> Iterator[Path | None]:
    """A temporary folder for the images of a shard; None where they are embedded."""
    if not job.files:
        yield None
        return
    final = _images(job, number)
    folder = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name_images(job: Job, number: int, folder: Path) -> None:
    """Give the images of a shard their place, just before the shard gets its name."""
    final = _images(job, number)
    if final.exists():  # of an earlier start that was killed between the two
        shutil.rmtree(final)
    sync_folder(folder)
    os.replace(folder, final)
    sync_folder(final.parent)


@contextmanager
def progress_bar(*, every: float = 0.05) -> Iterator[Callable[[int, int], None]]:
    """A function for ``on_progress``: a bar with rate and time left on a terminal, else a line every 5% on stderr."""
    start = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=None, rate="")

            def draw(done: int, total: int) -> None:
                progress.update(bar, completed=done, total=total, rate=_rate(done, start))

            yield draw
        return
    last = 0.0

    def write(done: int, total: int) -> None:
        nonlocal last
        if done / total >= last + every or (done == total and last < 1):
            last = done / total
            left = (time.monotonic() - start) * (total - done) / done
            sys.stderr.write(f"{done} of {total} samples, {_rate(done, start)}, {left:.0f} s left\n")

    yield write


def _rate(done: int, start: float) -> str:
    return f"{done / max(time.monotonic() - start, 1e-9):.0f} samples/s"


def summary(manifest: dict[str, Any], folder: Path) -> str:
    """The manifest in a few lines for a terminal."""
    size = sum(shard["bytes"] for shard in manifest["shards"])
    lines = [f"{manifest['rows']} samples in {len(manifest['shards'])} shards, {size / 1e6:.1f} MB -> {folder}"]
    for task, reasons in manifest["rejected"].items():
        lines.append(f"  {task}: rejected images: " + ", ".join(f"{n} x {reason}" for reason, n in reasons.items()))
    for task, failures in manifest["lost"].items():
        for reason, facts in failures.items():
            lines.append(f"  {task}: {facts['samples']} samples lost: {reason}; the first: {facts['first']}")
    return "\n".join(lines)
