"""ssrl_core: self-supervised spatial RL with pretext tasks as plugins.

This module re-exports what a plugin needs. ``answers`` has scorers, ``drawing`` labels, grids and markers, ``prompts``
wordings, and ``regions`` random places in an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import SourceError, SourceRejected, SSRLError
from .hookspecs import API_VERSION, SourcePlugin, TaskPlugin, hookimpl
from .types import ImageSource, Intrinsics, Level, Recipe, Sample, SourceImage, TaskInfo, Verdict

if TYPE_CHECKING:
    from .options import Options

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "ImageSource",
    "Intrinsics",
    "Level",
    "Options",
    "Recipe",
    "SSRLError",
    "Sample",
    "SourceError",
    "SourceImage",
    "SourcePlugin",
    "SourceRejected",
    "TaskInfo",
    "TaskPlugin",
    "Verdict",
    "hookimpl",
]


def __getattr__(name: str) -> type[Options]:
    # pydantic accounts for most of the import time of this package; ``ssrl list`` does not need it.
    if name == "Options":
        from .options import Options

        return Options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
