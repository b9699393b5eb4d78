"""How far a long piece of work is: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
