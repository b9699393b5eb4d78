"""ssrl_core: self-supervised spatial RL as an ecosystem of pretext-task plugins.

What a plugin needs is re-exported here; ``ssrl_core.answers`` has scorers and ``ssrl_core.drawing`` has labels,
grids and markers.
"""

from .errors import SourceError, SourceRejected, SSRLError
from .hookspecs import hookimpl
from .types import (
    ImageSource,
    Intrinsics,
    Level,
    Options,
    Recipe,
    Sample,
    SourceImage,
    TaskInfo,
    Verdict,
)

__version__ = "0.1.0"

__all__ = [
    "ImageSource",
    "Intrinsics",
    "Level",
    "Options",
    "Recipe",
    "SSRLError",
    "Sample",
    "SourceError",
    "SourceImage",
    "SourceRejected",
    "TaskInfo",
    "Verdict",
    "hookimpl",
]
