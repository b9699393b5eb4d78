"""All errors. Messages say what happened, where, why, and what to do.

SSRLError
├── PluginError
│   └── UnknownPlugin, DuplicatePlugin, NotAllowed, IncompatiblePlugin, BrokenPlugin, PluginFailed
├── MixError
├── RecipeError
└── SourceError
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SSRLError(Exception):
    """Base of all errors that a user of ssrl can cause or fix."""


class PluginError(SSRLError):
    """A plugin is missing, ambiguous, broken, or failed."""


class UnknownPlugin(PluginError):
    """No installed distribution provides a plugin of this name."""


class DuplicatePlugin(PluginError):
    """Several installed distributions provide a plugin of one name."""


class NotAllowed(PluginError):
    """The environment or the mix does not allow the distribution of a plugin."""


class IncompatiblePlugin(PluginError):
    """A plugin needs another version of the core or of the hooks."""


class BrokenPlugin(PluginError):
    """A plugin cannot be imported, or violates the hook specifications."""


class PluginFailed(PluginError):
    """A hook of a plugin raised an error, or returned an invalid value."""


class MixError(SSRLError):
    """A mix file is invalid."""


class RecipeError(SSRLError):
    """A training recipe, or an override of one of its keys, is invalid."""


class SourceError(SSRLError):
    """An image source cannot be opened, or has no usable image."""


class SourceRejected(Exception):
    """An image cannot carry a sample, which is no error: another image is drawn.

    Args:
        reason: a short constant phrase, e.g. ``"patches too similar"``, without measured values and file names:
            rejections are counted by it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
