"""Parts that several commands share: tables, a progress bar, options."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..mix.schedule import SplitName

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def table(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Rows as text with aligned columns. A row may have fewer cells than the others.

    Rich has tables too. They wrap cells at the width of the terminal, which breaks ``ssrl list | grep``, and importing
    them takes a quarter of the time of ``ssrl list``.
    """
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join((indent + line).rstrip() for line in lines)


def split_name(name: str) -> SplitName:
    """The value of ``--split``. Raises BadParameter for anything but the name of a split."""
    names: tuple[SplitName, ...] = ("train", "validation", "heldout")
    for known in names:
        if name == known:
            return known
    raise typer.BadParameter(f"{name!r} is not train, validation or heldout", param_hint="--split")


@contextmanager
def progress_bar(*, every: float = 0.05) -> Iterator[Callable[[int, int], None]]:
    """A function for ``on_progress``. Draws a bar on a terminal; otherwise writes a line to stderr every 5%."""
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
