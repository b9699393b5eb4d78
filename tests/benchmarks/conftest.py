"""The table of results, and the images for all measurements.

All times are CPU times of this process and its children, each the minimum of several rounds, so that other work on the
machine changes them little. A floor is measured alternately with its figure, in the same run.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
from PIL import Image

FRAMES = Path(__file__).parents[2] / "../shared/data/rgbd_kinect"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        floor: the least possible value of the figure; None if unknown.
        most: upper bound of the figure, or of its ratio to the floor.
        least: lower bound of the same.
    """

    what: str
    figure: float
    unit: str
    floor: float | None = None
    most: float | None = None
    least: float | None = None

    def cells(self) -> tuple[str, ...]:
        value = self.figure if self.floor is None else self.figure / self.floor
        goal = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}" if self.least is not None else "-"
        met = (self.most is None or value <= self.most) and (self.least is None or value >= self.least)
        return (
            self.what,
            f"{_short(self.figure)} {self.unit}",
            "-" if self.floor is None else f"{_short(self.floor)} {self.unit}",
            "-" if self.floor is None else f"{value:.2f}",
            goal,
            "-" if goal == "-" else "yes" if met else "NO",
        )


_rows: list[Row] = []


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


@pytest.fixture
def table() -> Callable[..., None]:
    """A function that adds a row to the table; it takes the arguments of ``Row``."""

    def add(*args: Any, **kwargs: Any) -> None:
        _rows.append(Row(*args, **kwargs))

    return add


@pytest.fixture
def in_turns(benchmark: Any) -> Callable[..., tuple[float, float]]:
    """``in_turns(function, floor)`` returns the minimal CPU milliseconds of the function and of its floor."""

    def measure(function: Callable[[], Any], floor: Callable[[], Any] = lambda: None, *, rounds: int = 3) -> Any:
        floors: list[float] = []

        def measure_floor() -> None:
            begin = time.process_time()
            floor()
            floors.append(time.process_time() - begin)

        benchmark.pedantic(function, setup=measure_floor, rounds=rounds, warmup_rounds=1)
        return benchmark.stats.stats.min * 1000, min(floors[1:]) * 1000

    return measure


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``color/*.jpg``, 640 x 480 pixels, and ``depth/*.png``, uint16 in millimetres; and, if the real
    frames are there, ``pose/*.txt`` and ``camera.txt``."""
    folder = tmp_path_factory.mktemp("frames")
    for name in ("color", "depth"):
        (folder / name).mkdir()
    if FRAMES.is_dir():
        (folder / "pose").mkdir()
        (folder / "camera.txt").symlink_to((FRAMES / "camera-intrinsics.txt").resolve())
        for number, path in enumerate(sorted(FRAMES.glob("*.color.jpg"))):
            (folder / "color" / f"{number}.jpg").symlink_to(path.resolve())
            depth = path.with_name(path.name.replace(".color.jpg", ".depth.png"))
            (folder / "depth" / f"{number}.png").symlink_to(depth.resolve())
            pose = path.with_name(path.name.replace(".color.jpg", ".pose.txt"))
            (folder / "pose" / f"{number}.txt").symlink_to(pose.resolve())
        return folder
    from ssrl_core.sources import open_source

    source = open_source("synthetic:")
    for number in range(24):
        image = source.load(source.image_id(number))
        Image.fromarray(image.rgb).resize((640, 480)).save(folder / "color" / f"{number}.jpg", quality=90)
        assert image.depth is not None
        millimetres = cv2.resize(image.depth * 1000, (640, 480), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / "depth" / f"{number}.png"), cv2.max(millimetres, 0).round().astype("uint16"))
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    head = ("what", "measured", "floor", "ratio", "goal", "met?")
    lines = [head, *(row.cells() for row in _rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.section("benchmarks")
    terminalreporter.line(f"{_machine()}; CPU time, least of the rounds; load {os.getloadavg()[0]:.1f}")
    for line in lines:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _machine() -> str:
    return f"{os.cpu_count()} cores of {next(_models(), platform.processor())}, Python {platform.python_version()}"


def _models() -> Iterator[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(": ")[2]
    except OSError:
        return
