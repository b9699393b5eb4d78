"""Benchmarks of commands: an export, and the start of the program."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

PAPER = Path(__file__).parents[2] / "examples" / "paper" / "mix.yaml"
FEW, MANY = 100, 500


def _cpu(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a command and its child processes."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begin
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


@pytest.fixture(scope="session")
def paper(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's mix on the frames."""
    rgbd = {"source": f"rgbd:{frames}"}
    path = tmp_path_factory.mktemp("paper") / "mix.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "include": str(PAPER.resolve()),
                "source": f"folder:{frames}/color",
                "tasks": {"depth_ordering": rgbd, "relative_position": rgbd},
            }
        )
    )
    return path


@pytest.mark.parametrize(("files", "goal"), [("PNG", 200), ("JPEG 90", 250)])
def test_export(benchmark: Any, table: Any, paper: Path, tmp_path: Path, files: str, goal: int):
    """Measures the cost of a sample as the difference between a large and a small export, which excludes the start.

    The rate for two cores is two CPU seconds divided by the CPU time of a sample with two workers. The efficiency is
    the ratio of the CPU times with one and with two workers, so only duplicated or wasted work lowers it.
    """
    cost, walls = {}, {}
    for workers in (1, 2):
        spent = []
        for samples in (FEW, MANY):
            folder = tmp_path / f"{workers}-{samples}"
            command = [sys.executable, "-m", "ssrl_core", "export", str(paper), "-o", str(folder), "-n", str(samples)]
            command += ["--workers", str(workers), "--shard-size", "50"]
            command += ["--jpeg", "90"] if files == "JPEG 90" else []
            rounds = [_cpu([*command, "-o", f"{folder}-{turn}"]) for turn in range(2)]
            spent.append([min(times) for times in zip(*rounds, strict=True)])
        cost[workers], walls[workers] = ((b - a) / (MANY - FEW) for a, b in zip(*spent, strict=True))
    benchmark.pedantic(lambda: None, rounds=1)
    table(f"export of the paper's mix, {files}: samples in 2 core-seconds", 2 / cost[2], "/s", least=goal)
    table(f"export, {files}: efficiency from 1 to 2 workers, by CPU time", cost[1] / cost[2], "", least=0.9)
    table(f"export, {files}: samples a second by the clock, 2 workers", 1 / walls[2], "/s")


def test_start(benchmark: Any, table: Any):
    commands = {
        "python -c 'import ssrl_core'": ["-c", "import ssrl_core"],
        "ssrl list": ["-m", "ssrl_core", "list"],
    }
    python = [sys.executable]
    for name, arguments in commands.items():
        pairs = [(_cpu([*python, *arguments])[0], _cpu([*python, "-c", ""])[0]) for _ in range(5)]
        least, floor = (min(times) * 1000 for times in zip(*pairs, strict=True))
        table(f"start: {name}", least, "ms", floor)
    benchmark.pedantic(lambda: None, rounds=1)
