"""What docs/benchmarks.md shows, run on the miniatures: every command, and the benchmark of one's own."""

import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssrl_core.benchmarks.installed import load, names
from ssrl_core.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines() if line.startswith("ssrl ")]


@pytest.fixture
def run(miniatures, tmp_path, monkeypatch, stand_in):
    """A function that runs a command line of the page on the miniatures, without a model."""
    monkeypatch.chdir(tmp_path)

    def run(line):
        words = shlex.split(line.replace(" DIR", f" {miniatures[1]}"))[1:]
        return CliRunner().invoke(app(["benchmark", "compare"]), words)

    return run


def test_every_command_of_the_page_runs(run, stand_in):
    """In the order of the page. ``compare`` takes the results of one of them, and of another model."""
    done = {}
    for line in COMMANDS:
        if "compare" in line:
            before = run("ssrl benchmark whatsup vsibench --data DIR --model other -o runs/benchmark/BEFORE")
            assert before.exit_code == 0, before.output
        done[line] = run(line)
    assert len(done) == 6
    listed, checked, seven, thinking, paper, compared = done.values()
    assert all(name in listed.stdout for name in names()) and listed.exit_code == 0
    assert checked.exit_code == 1  # a miniature is not all of the data
    assert [line.partition(";")[0] for line in checked.stdout.splitlines()] == [
        "spatial457: 28 questions",
        "vsibench: 20 questions",
    ]
    for result in (seven, thinking, paper, compared):
        assert result.exit_code == 0, result.output
    assert "not whole: 3DSRBench, SpatialEval, QSpatial+, What'sUp, ViewSpatial, VSI-Bench" in seven.stdout
    folders = {path.parent.relative_to("runs/benchmark") for path in Path("runs/benchmark").glob("*/*/report.html")}
    assert {path.parts[0] for path in folders} == {"AFTER", "BEFORE", "NAME-standard-required", "PATH-paper-none"}
    assert len(folders) == 7 + 1 + 1 + 2
    assert re.search(r"whatsup +16 +0.250 +0.250 .*McNemar", compared.stdout), compared.stdout
    (_, settings), *_ = stand_in
    assert settings["command"][0] == "vllm" and len(settings["command"]) == 8  # a prompt of each
    # The same command resumes: nothing is asked again.
    answers = [path.read_bytes() for path in sorted(Path("runs").glob("*/*/*/answers.jsonl"))]
    assert run(list(done)[2]).exit_code == 0
    assert [path.read_bytes() for path in sorted(Path("runs").glob("*/*/*/answers.jsonl"))] == answers


def test_the_files_of_the_page_are_those_that_are_read():
    for name in names():
        cell = re.search(rf"`{name}/`.*\| (.*) \|", PAGE)[1]
        patterns = [pattern for files in load(name)[0].files for pattern in files.split("|")]
        first = {
            re.sub(r"\w+\.json$", "*.json", pattern) if "questions/" in pattern else pattern for pattern in patterns
        }
        for pattern in first - {"test-00000-of-00001.parquet"}:
            assert f"`{pattern.removeprefix('**/')}`" in cell, (name, pattern)


@pytest.fixture
def corners(install, miniatures, tmp_path, monkeypatch):
    """The benchmark of the page as an installed distribution, and a folder with its data."""
    (code,), (entry_points,) = blocks("python"), blocks("toml")
    declared = tomllib.loads(entry_points)["project"]["entry-points"]
    monkeypatch.delitem(sys.modules, "ssrl_benchmark_corners", raising=False)
    install("ssrl-benchmark-corners", entry_points=declared, code=code)
    data = tmp_path / "data"
    data.mkdir()
    pictures = sorted((miniatures[1] / "viewspatial").rglob("*.jpg"))[:10]
    records = []
    for number, picture in enumerate(pictures):
        shutil.copy(picture, data / f"{number}.jpg")
        records.append({"picture": f"{number}.jpg", "options": ["left", "right"], "answer": "AB"[number % 2]})
    (data / "corners.json").write_text(json.dumps(records))
    return data


def test_the_benchmark_of_ones_own_is_listed_checked_run_and_compared(corners, run):
    assert "corners" in run("ssrl benchmark --list").stdout
    checked = run(f"ssrl benchmark corners --data {corners} --check")
    assert (checked.exit_code, checked.stdout) == (1, "corners: 10 questions; 10 questions of Corners instead of 40\n")
    asked = run(f"ssrl benchmark corners --data {corners} --model M")
    assert asked.exit_code == 0 and re.search(r"corners +10 +0.500", asked.stdout), asked.output
    assert "mean of the 7" not in asked.stdout and "7 spatial" not in asked.stdout
    refused = run(f"ssrl benchmark corners --data {corners} --model M --recipe paper")
    assert "no published evaluation of it is known" in str(refused.exception)
    (corners / "3.jpg").write_bytes(b"no picture")
    damaged = run(f"ssrl benchmark corners --data {corners} --model M -o damaged")
    assert damaged.exit_code == 1 and re.search(r"corners +9 +0.556", damaged.stdout)  # 5 of 9: it is not wrong
    assert re.search(r"retries them: 1 x corners: no question: .*3\.jpg: not readable as an image", damaged.stderr)
    (corners / "3.jpg").unlink()
    assert "3.jpg" in run(f"ssrl benchmark corners --data {corners} --check").stdout


def test_a_benchmark_that_cannot_be_imported_does_not_hide_the_others(install, run):
    broken = {"ssrl.benchmarks": {"broken": "ssrl_benchmark_broken:benchmark"}}
    install("ssrl-benchmark-broken", entry_points=broken, code="1 / 0")
    listed = run("ssrl benchmark --list").stdout
    assert "ssrl-benchmark-broken 0.1" in listed and "division by zero" in listed and "whatsup" in listed
