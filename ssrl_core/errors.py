"""What can go wrong, as one tree. The messages say what, where, why, and what to do.

SSRLError
├── PluginError            a plugin is missing, doubled, broken, or raised
│   ├── UnknownPlugin      nothing of that name is installed
│   ├── DuplicatePlugin    two distributions claim one name
│   ├── NotAllowed         its distribution is not among those that may be loaded
│   ├── IncompatiblePlugin it was written for another release of the core
│   ├── BrokenPlugin       it does not import, or does not fulfil the hook specs
│   └── PluginFailed       one of its hooks raised, or returned something impossible
├── MixError               a mix file says something that cannot be
├── RecipeError            a training recipe, or an override of one, cannot be
└── SourceError            an image source cannot be opened, or has nothing usable

SourceRejected             not an error: a task declines one image, and the next one is drawn
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SSRLError(Exception):
    """Base of every error that a user of ssrl can cause or mend."""


class PluginError(SSRLError):
    """A plugin is missing, doubled, broken, or raised."""


class UnknownPlugin(PluginError):
    """No installed distribution provides a plugin of that name."""


class DuplicatePlugin(PluginError):
    """Several installed distributions provide a plugin of one name."""


class NotAllowed(PluginError):
    """A plugin's distribution is not among those that the environment or the mix allows."""


class IncompatiblePlugin(PluginError):
    """A plugin was written for another release of the core or another version of the hooks."""


class BrokenPlugin(PluginError):
    """A plugin cannot be imported, or does not fulfil the hook specifications."""


class PluginFailed(PluginError):
    """A plugin's hook raised an exception or returned something outside its contract."""


class MixError(SSRLError):
    """A mix file says something that cannot be."""


class RecipeError(SSRLError):
    """A training recipe, or an override of one, cannot be."""


class SourceError(SSRLError):
    """An image source cannot be opened, or has no image that can be used."""


class SourceRejected(Exception):
    """One image cannot carry a sample; another one is drawn in its place.

    Args:
        reason: a short constant phrase, e.g. ``"patches too similar"``. Rejections are counted by it,
            so it must not contain measured values or file names.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
