"""A type checker accepts sound plugins and finds mistakes in their hooks."""

import inspect
from pathlib import Path

import pytest

from ssrl_core import hookspecs
from ssrl_core.plugins.hooks import SPECS

ROOT = Path(__file__).parents[1]

PLUGIN = """
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssrl_core import ImageSource, Level, Options, Sample, SourceImage, TaskInfo, hookimpl


class MyOptions(Options):
    strength: float = 1.0


@hookimpl
def ssrl_task_info() -> TaskInfo:
    return TaskInfo(version="1", summary="s", levels={"1": Level("l", 0.5)}, options=MyOptions)


@hookimpl
def ssrl_generate_sample(rng: np.random.Generator, source: SourceImage, options: MyOptions, **_: object) -> Sample:
    return Sample((Image.new("RGB", (32, 32)),), "AB"[rng.integers(2)])


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    return f"<image>{len(sample.images)}"


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, **_: object) -> float:
    return float(answer == truth)


@hookimpl
def ssrl_open_source(uri: str) -> ImageSource | None:
    return None


if TYPE_CHECKING:
    import MODULE
    from ssrl_core import SourcePlugin, TaskPlugin

    _task: TaskPlugin = MODULE
    _source: SourcePlugin = MODULE
"""
WRONG = {
    "misspelt": ("def ssrl_verify_answer", "def ssrl_verify_answr"),
    "left_out": ("truth: str, **_: object", "truth: str"),
    "unknown": ("answer: str, truth: str", "answer: str, truth: str, key: str"),
    "mistyped": ("(answer: str", "(answer: int"),
    "returns": (") -> str:\n    return f", ") -> list[str]:\n    return [] and f"),
}


def test_mypy_accepts_a_plugin_and_finds_each_mistake_in_its_hooks(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "right.py").write_text(PLUGIN.replace("MODULE", "right"))
    for name, change in WRONG.items():
        (tmp_path / f"{name}.py").write_text(PLUGIN.replace(*change).replace("MODULE", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    files = [f"{name}.py" for name in ("right", *WRONG)]
    report, trouble, _ = api.run(["--strict", "--config-file=", "--follow-imports=silent", *files])
    assert not trouble, trouble
    refused = {line.partition(".py:")[0] for line in report.splitlines() if 'variable has type "TaskPlugin"' in line}
    assert refused == set(WRONG), report


def test_a_plugin_that_takes_the_rest_of_the_arguments_works(install_toy):
    from ssrl_core.plugins import load_task

    install_toy(("(answer, truth)", "(answer, truth, **_)"))
    assert load_task("toy").verify_answer("A", truth="A", params={}) == 1.0


def test_the_protocols_have_the_arguments_of_the_specifications():
    protocols = (hookspecs.TaskPlugin, hookspecs.SourcePlugin)
    typed = {
        name: list(inspect.signature(fn).parameters)[1:]
        for protocol in protocols
        for name, fn in vars(protocol).items()
        if name.startswith("ssrl_")
    }
    assert typed == {name: list(inspect.signature(fn).parameters) for name, fn in SPECS.items()}
