"""What several commands share: the option ``--json``, tables, a progress bar."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Annotated, TypeVar

import typer

Facts = TypeVar("Facts")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def show(facts: Facts, as_text: Callable[[Facts], str], *, as_json: bool) -> None:
    """Print facts as JSON or as text."""
    typer.echo(json.dumps(facts, indent=2) if as_json else as_text(facts))


def table(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Rows as text with aligned columns. A row may have fewer cells than the others.

    Rich has tables too. They wrap cells at the width of the terminal, which breaks ``ssrl list | grep``, and importing
    them takes a quarter of the time of ``ssrl list``.
    """
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join((indent + line).rstrip() for line in lines)


def counted(reasons: dict[str, int]) -> str:
    """Reasons with their numbers: ``3 x image too small, 1 x unreadable image``."""
    return ", ".join(f"{n} x {reason}" for reason, n in reasons.items())


@contextmanager
def progress_bar(unit: str = "samples") -> Iterator[Callable[[int, int], None]]:
    """A function for ``on_progress``. Draws a bar on a terminal; otherwise writes a line to stderr every 5%."""
    start = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=None, rate="")
            yield lambda done, total: progress.update(bar, completed=done, total=total, rate=_rate(done, start, unit))
        return
    last = 0.0

    def write(done: int, total: int) -> None:
        nonlocal last
        if done / total >= last + 0.05 or (done == total and last < 1):
            last = done / total
            left = (time.monotonic() - start) * (total - done) / done
            sys.stderr.write(f"{done} of {total} {unit}, {_rate(done, start, unit)}, {left:.0f} s left\n")

    yield write


@contextmanager
def live_bar(*, quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A function that shows how much is done, of how much, and what is being done, with the time left.

    Nothing is shown if stderr is not a terminal, or ``quiet``. Lines that are printed meanwhile stand above the bar.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # Rich would send what is printed to the terminal even if stdout is a file or a pipe.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total, name: progress.update(bar, completed=done, total=total, description=name)


def _rate(done: int, start: float, unit: str) -> str:
    return f"{done / max(time.monotonic() - start, 1e-9):.0f} {unit}/s"
