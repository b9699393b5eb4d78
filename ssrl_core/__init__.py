"""ssrl_core: self-supervised spatial RL with pretext tasks as plugins.

This module re-exports what a plugin needs: hooks, types and errors. ``answers`` has scorers, ``drawing`` labels, grids
and markers, ``prompts`` wordings, ``regions`` random places in an image, and ``views`` the geometry of posed views.

It also re-exports what a program needs that uses tasks, and imports it on first use:

    load_task(name)         a Task: its facts, its options, and its hooks as methods
    load_mix(path)          a Mix: its samples by index, each an Example with recipe, sample and prompt
    render(recipe)          the Sample of a Recipe again: images, truth, params
    Key.of(example, ...)    everything that the reward of a completion depends on besides the completion
    score(key, completion)  the reward: score, acc, format, error and pred
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import SourceError, SourceRejected, SSRLError
from .hookspecs import API_VERSION, FramesTaskPlugin, SourcePlugin, TaskPlugin, hookimpl
from .types import (
    FrameSource,
    ImageSource,
    Intrinsics,
    Level,
    Recipe,
    Sample,
    SourceFrames,
    SourceImage,
    TaskInfo,
    Verdict,
)

if TYPE_CHECKING:
    from .mix import Mix, load_mix
    from .options import Options
    from .plugins import Task, load_task
    from .reward import Key, score
    from .sample import Example, render

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "Example",
    "FrameSource",
    "FramesTaskPlugin",
    "ImageSource",
    "Intrinsics",
    "Key",
    "Level",
    "Mix",
    "Options",
    "Recipe",
    "SSRLError",
    "Sample",
    "SourceError",
    "SourceFrames",
    "SourceImage",
    "SourcePlugin",
    "SourceRejected",
    "Task",
    "TaskInfo",
    "TaskPlugin",
    "Verdict",
    "hookimpl",
    "load_mix",
    "load_task",
    "render",
    "score",
]

# Modules that are imported when one of their names is used first. All but the first are above this one.
_LATER = {
    **dict.fromkeys(("Options",), "options"),
    **dict.fromkeys(("Task", "load_task"), "plugins"),
    **dict.fromkeys(("Mix", "load_mix"), "mix"),
    **dict.fromkeys(("Example", "render"), "sample"),
    **dict.fromkeys(("Key", "score"), "reward"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
