"""The samples of a level, which are made when a criterion first looks at them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures import TimeoutError as TooLate
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import Generic, NamedTuple, TypeVar, overload

from PIL import Image

from ..errors import PluginFailed, SSRLError
from ..plugins import Task
from ..types import Sample
from .cache import load, prune, save
from .keys import Keys
from .samples import Made, Plan, Row, digest, make, rows

T = TypeVar("T")

SETS = "natural", "oriented"
FEW = 24
"""The least number of samples that are kept with their images; otherwise a tenth of all."""
COMPARED = 8
"""Oriented samples that are made again to compare them with kept ones."""
CHUNK = 50
CHUNK_SECONDS = 180.0


class NotMade(Exception):
    """A sample cannot be made; the message says why."""


class NoWorkers(SSRLError):
    """The worker processes cannot be started."""


class Lot(Sequence[T], Generic[T]):
    """Samples that are made when they are first looked at. Any use may raise NotMade or NoWorkers."""

    def __init__(self, make: Callable[[], Sequence[T]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Sequence[T]:
        return self._make()

    @property
    def is_made(self) -> bool:
        """Whether somebody has looked."""
        return "_made" in vars(self)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        return self._made[place]

    def __len__(self) -> int:
        return len(self._made)


class Drawer:
    """Makes rows in worker processes, and keeps them on disk.

    Args:
        task: of all samples.
        source: URI of the images.
        workers: number of processes; with 0, this process makes the rows, and nothing is kept.
        folder: of the kept rows; None to keep nothing.
    """

    def __init__(self, task: Task, source: str, *, workers: int, folder: Path | None) -> None:
        self.task, self._workers = task, workers
        # This process may have imported the code before it was edited; workers import it anew.
        self._folder = folder if workers else None
        self._keys = Keys(task, source) if self._folder else None
        self._pool: ProcessPoolExecutor | None = None
        self._last = 0.0  # when the processes last began or finished a chunk

    @property
    def images(self) -> str:
        """See ``Plan.images``."""
        name = self._keys.images if self._keys else ""
        return str(self._folder / name) if self._folder and name else ""

    def begin(self, plan: Plan, indices: range, *, fresh: bool = False) -> Callable[[], list[Row]]:
        """Begin to make rows. Returns a function that waits for them; kept rows have no prompts.

        Args:
            fresh: whether kept rows are not used.
        """
        starts = range(indices.start, indices.stop, CHUNK)
        chunks = [range(start, min(start + CHUNK, indices.stop)) for start in starts]
        if not self._workers:
            return lambda: [row for chunk in chunks for row in rows(plan, chunk)]
        name = self._keys.rows(plan) if self._keys else ""
        begun: list[tuple[Path | None, list[Row] | Future[list[Row]]]] = []
        for chunk in chunks:
            path = self._folder / f"{name}-{chunk.start}-{chunk.stop}.rows" if self._folder and name else None
            kept = load(path) if path and not fresh else None
            begun.append((path, self._submit(plan, chunk) if kept is None else kept))
        return lambda: [row for path, chunk in begun for row in self._finish(path, chunk)]

    def _submit(self, plan: Plan, chunk: range) -> Future[list[Row]]:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=spawn, initializer=_end_with_parent)
        future = self._pool.submit(rows, plan, chunk)
        self._heard(future)
        future.add_done_callback(self._heard)
        return future

    def _heard(self, _: Future[list[Row]]) -> None:
        self._last = time.monotonic()

    def _finish(self, path: Path | None, chunk: list[Row] | Future[list[Row]]) -> list[Row]:
        if isinstance(chunk, list):
            return chunk
        while not wait([chunk], timeout=self._last + CHUNK_SECONDS - time.monotonic()).done:
            if time.monotonic() - self._last >= CHUNK_SECONDS:  # others may be before it in the queue, and go on
                raise TooLate
        made = chunk.result()
        if path and self._keys and self._keys.unchanged:
            save(path, [replace(row, prompt="") for row in made])
        return made

    def close(self) -> None:
        """End the worker processes, and bound the size of the folder."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # shutdown would wait for a task that hangs
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._folder:
            prune(self._folder)


def _end_with_parent() -> None:
    """End this worker process when its parent ends, even if the parent is killed or the task hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class _Part(NamedTuple):
    """One of the equal parts of a set of samples, with the groups of features that are measured."""

    name: str
    number: int
    groups: tuple[str, ...]


class Level:
    """The samples of a task at one level.

    Attributes:
        plan: of the natural samples.
        failure: why samples cannot be made; None as long as they can.
    """

    def __init__(self, plan: Plan, samples: int, drawer: Drawer, *, groups: Sequence[str]) -> None:
        self.plan = plan
        self.failure: NotMade | None = None
        self._samples, self._drawer, self._groups = samples, drawer, tuple(groups)
        self._few: list[Made] = []
        self._begun: dict[_Part, Callable[[], list[Row]]] = {}
        self._rows: dict[_Part, list[Row]] = {}

    @property
    def made(self) -> int:
        """The number of samples that were made so far; the few ones are among the natural ones."""
        return sum(map(len, self._rows.values())) or len(self._few)

    def few(self) -> Lot[Made]:
        """Samples with their images: a tenth of all, but at least ``FEW``."""
        return Lot(partial(self._guarded, self._make_few))

    def rows(self, name: str, *, times: int = 1, groups: Sequence[str] = ()) -> Lot[Row]:
        """The rows of one of the ``SETS``.

        Args:
            times: that many times the number of samples.
            groups: of features that are measured in what exceeds this number.
        """
        parts = [_Part(name, number, tuple(groups) if number else self._groups) for number in range(times)]
        return Lot(lambda: [row for part in parts for row in self._guarded(partial(self._part, part))])

    def begin(self, name: str) -> None:
        """Let the worker processes begin with rows that will be needed."""
        self._begin(_Part(name, 0, self._groups))

    def _begin(self, part: _Part) -> Callable[[], list[Row]]:
        if part not in self._begun:
            self._begun[part] = self._drawer.begin(self._plan(part), self._indices(part))
        return self._begun[part]

    def _plan(self, part: _Part) -> Plan:
        return self.plan if part.name == "natural" else self.plan.as_oriented(groups=part.groups)

    def _indices(self, part: _Part) -> range:
        return range(part.number * self._samples, (part.number + 1) * self._samples)

    def _make_few(self) -> list[Made]:
        count = min(max(FEW, self._samples // 10), self._samples)
        self._few = self._few or [make(self.plan, index) for index in range(count)]
        return self._few

    def _part(self, part: _Part) -> list[Row]:
        if part not in self._rows:
            found = self._begin(part)()
            if not all(row.prompt for row in found):
                found = (
                    self._completed(part, found)
                    or self._drawer.begin(self._plan(part), self._indices(part), fresh=True)()
                )
            self._rows[part] = found
        return self._rows[part]

    def _completed(self, part: _Part, found: Sequence[Row]) -> list[Row]:
        """Kept rows with their prompts; nothing if samples that are made anew differ from them.

        The prompts are made without pixels, which shows in the comparison if a prompt depends on them.
        """
        try:
            rows = [row if row.prompt else replace(row, prompt=self._blank_prompt(row)) for row in found]
        except PluginFailed:
            return []
        if part.name == "natural" and not part.number:
            again = self._make_few()
        else:
            again = [make(self._plan(part), row.index) for row in rows[:COMPARED]]
        pairs = zip(again, rows, strict=False)
        return rows if all((digest(m.sample), m.prompt) == (row.digest, row.prompt) for m, row in pairs) else []

    def _blank_prompt(self, row: Row) -> str:
        images = tuple(Image.new("RGB", size) for size in row.sizes)
        return self._drawer.task.format_prompt(Sample(images, row.truth, row.params))

    def _guarded(self, make: Callable[[], list[T]]) -> list[T]:
        """What a function makes. Raises NotMade, also if samples of this level could not be made before."""
        if self.failure:
            raise self.failure
        try:
            return make()
        except BrokenProcessPool as err:
            raise NoWorkers(
                "the processes that draw samples ended: call check_task below `if __name__ == '__main__':`, "
                "or with workers=0"
            ) from err
        except Exception as err:
            what = f"fifty samples took longer than {CHUNK_SECONDS:.0f} s" if isinstance(err, TooLate) else str(err)
            self.failure = NotMade(what or type(err).__name__)
            raise self.failure from err
