"""ssrl_core: self-supervised spatial RL as an ecosystem of pretext-task plugins.

What a plugin needs is re-exported here; ``ssrl_core.answers`` has scorers and ``ssrl_core.drawing`` has labels,
grids and markers.
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
    # pydantic is most of the import time of this package, and listing plugins needs none of it.
    if name == "Options":
        from .options import Options

        return Options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
