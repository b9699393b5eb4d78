"""The hooks that a plugin implements. Nothing else is asked of it.

A *task plugin* implements the first four; its entry-point name in the group ``ssrl`` is the task's name.
A *source plugin* implements the last; its entry-point name in the group ``ssrl.sources`` is the URI scheme.
A *wrapper* implements some of the first four as ``@hookimpl(wrapper=True)``, for all tasks for which it is named; its
entry-point name in the group ``ssrl.wrappers`` is what a mix calls it.

An implementation may leave out arguments that it does not use (or take them as ``**_``), and must not give an argument
a default value, with which pluggy may never pass it. A plugin that uses what came with a later version of the hooks
says so with the constant ``SSRL_API = "1.3"`` in its module, and with its dependency ``ssrl-core>=...``; without the
constant, 1.0 is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    import numpy as np

    from .options import Options
    from .types import ImageSource, Sample, SourceImage, TaskInfo

API_VERSION = (1, 0)
"""Of the hooks and all that plugins import: (major, minor). Minor: something came. Major: something went or changed."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """An old name that still works: what to ``use`` instead, and the version of the hooks in which it goes."""

    use: str
    until: str


DEPRECATED: dict[str, Deprecation] = {}
"""Old hook, as ``"ssrl_old"``, or old argument, as ``"ssrl_hook.old"`` -> what became of it."""

hookspec = pluggy.HookspecMarker("ssrl")
hookimpl = pluggy.HookimplMarker("ssrl")


@hookspec(firstresult=True)
def ssrl_task_info() -> TaskInfo:
    """What the task is: version, summary, levels, whether it needs depth, its options. Constant and quick."""


@hookspec(firstresult=True)
def ssrl_generate_sample(source: SourceImage, rng: np.random.Generator, level: str, options: Options) -> Sample:
    """Make one puzzle out of one image.

    A pure function of its arguments: no global random state, clock, environment or file. Every random decision
    draws from ``rng``. When an image is rejected, the next one comes with a fresh copy of the same ``rng``: draw
    the truth first, before anything that depends on the image, and rejections cannot bias it. ``source`` has already
    been brought to the working size and must not be written to; it has depth if the task's info says that it needs
    depth. ``level`` is one of the info's levels, ``options`` an instance of its options model. The truth must be
    uniform over the answer space of the level.

    Raises:
        SourceRejected: the image cannot carry the task without ambiguity (flat, symmetric, too small, ...).
    """


@hookspec(firstresult=True)
def ssrl_format_prompt(sample: Sample) -> str:
    """Word the question: user text with one ``<image>`` for each image of the sample, in order.

    The core appends how to present the answer (thinking, then one box), so the text only says what is asked
    and what form the answer has. It must not depend on the truth.
    """


@hookspec(firstresult=True)
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """Score one extracted answer in [0, 1]: 1.0 if and only if it is right.

    Pure and thread-safe. ``answer`` is whatever a model wrote into the box: any text, never empty.
    ``truth`` and ``params`` are the sample's, after a round trip through JSON. Forgive case, white space and
    harmless decoration (see ``ssrl_core.answers``); never reward a list of candidates.
    """


@hookspec(firstresult=True)
def ssrl_open_source(uri: str) -> ImageSource | None:
    """Open a collection of images, e.g. ``folder:/data/photos``. None if the URI is not this plugin's.

    Raises:
        SourceError: the URI is this plugin's, but cannot be opened.
    """


class TaskPlugin(Protocol):
    """A task plugin as types: a module or an object that has the four hooks of a task.

    For a type checker only, which then knows the hooks of ``plugin: TaskPlugin = my_module``. Arguments may stand in
    any order; one that is not used has to be taken all the same, by name or with ``**_: object``.
    """

    def ssrl_task_info(self) -> TaskInfo: ...
    def ssrl_generate_sample(
        self, *, source: SourceImage, rng: np.random.Generator, level: str, options: Any
    ) -> Sample: ...
    def ssrl_format_prompt(self, *, sample: Sample) -> str: ...
    def ssrl_verify_answer(self, *, answer: str, truth: str, params: Mapping[str, Any]) -> float: ...


class SourcePlugin(Protocol):
    """A source plugin as types; see ``TaskPlugin``."""

    def ssrl_open_source(self, *, uri: str) -> ImageSource | None: ...
