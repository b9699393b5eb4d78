"""The hooks that plugins implement.

A *task plugin* implements the first four hooks. Its entry-point name in the group ``ssrl`` is the name of the task.
A *source plugin* implements ``ssrl_open_source``. Its entry-point name in ``ssrl.sources`` is the URI scheme.
A *wrapper* implements some of the first four as ``@hookimpl(wrapper=True)``, for every task of a mix that names it by
its entry-point name in ``ssrl.wrappers``.

An implementation may leave out arguments or take them as ``**_``. It must not give an argument a default value, because
pluggy may then not pass it. A plugin that needs a later version of the hooks than 1.0 states it in its module, e.g.
``SSRL_API = "1.3"``, and depends on ``ssrl-core>=...``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pluggy

if TYPE_CHECKING:
    import numpy as np

    from .options import Options
    from .types import ImageSource, Sample, SourceFrames, SourceImage, TaskInfo

API_VERSION = (1, 1)
"""Version (major, minor) of the hooks and of all modules that plugins import. The minor number rises with an addition,
the major number with a change or removal."""


class Deprecation(NamedTuple):
    """An old name that still works: what to ``use`` instead, and the version of the hooks that removes it."""

    use: str
    until: str


DEPRECATED: dict[str, Deprecation] = {}
"""Old hook (``"ssrl_old"``) or old argument (``"ssrl_hook.old"``) -> its deprecation."""

hookspec = pluggy.HookspecMarker("ssrl")
hookimpl = pluggy.HookimplMarker("ssrl")


@hookspec(firstresult=True)
def ssrl_task_info() -> TaskInfo:
    """Version, summary, levels, options and needs of the task. Constant and fast."""


@hookspec(firstresult=True)
def ssrl_generate_sample(
    source: SourceImage | SourceFrames, rng: np.random.Generator, level: str, options: Options
) -> Sample:
    """One sample made from one image, or from the frames of one scene.

    A pure function of its arguments: no global random state, clock, environment or file; every random decision draws
    from ``rng``. After a rejection the next image comes with a fresh copy of the same ``rng``. Draw the truth first,
    before anything that depends on the image, so that rejections cannot bias it. The truth must be uniform over the
    answer space of the level.

    Args:
        source: the image at its working size, read-only; with depth if the task's info says that it needs depth. For a
            task that takes views or a clip: their frames, all of which have the same crop.
        rng: of this sample.
        level: one of the levels of the task's info.
        options: an instance of the task's options model.

    Raises:
        SourceRejected: the image cannot carry an unambiguous sample (flat, symmetric, too small, ...).
    """


@hookspec(firstresult=True)
def ssrl_format_prompt(sample: Sample) -> str:
    """The question: user text with one ``<image>`` for each image of the sample, in order.

    The core appends how to present the answer. The text states the question and the form of the answer. It must not
    depend on the truth.
    """


@hookspec(firstresult=True)
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """The score of one extracted answer in [0, 1]; 1.0 if and only if it is right.

    Pure and thread-safe. ``answer`` is the content of the model's box: any text, never empty. ``truth`` and ``params``
    are those of the sample after a round trip through JSON. Accept any case, white space and harmless decoration (see
    ``ssrl_core.answers``); never reward a list of candidates.
    """


@hookspec(firstresult=True)
def ssrl_open_source(uri: str) -> ImageSource | None:
    """The collection of images at a URI, e.g. ``folder:/data/photos``; None if the plugin does not take the URI.

    The part of the URI between ``SCHEME:`` and ``?`` arrives as an absolute path: the core resolves a relative path
    against the file that contains the URI. The part is not a path if it is empty, contains ``://`` or ``::``, or begins
    with ``//`` but not with ``///``; then it arrives as written.

    Raises:
        SourceError: the plugin takes the URI but cannot open it.
    """


class TaskPlugin(Protocol):
    """The type of a task plugin, a module or an object, for type checkers: ``plugin: TaskPlugin = my_module``.

    Arguments may have any order. Take unused ones by name or with ``**_: object``.
    """

    def ssrl_task_info(self) -> TaskInfo: ...
    def ssrl_generate_sample(
        self, *, source: SourceImage, rng: np.random.Generator, level: str, options: Any
    ) -> Sample: ...
    def ssrl_format_prompt(self, *, sample: Sample) -> str: ...
    def ssrl_verify_answer(self, *, answer: str, truth: str, params: Mapping[str, Any]) -> float: ...


class FramesTaskPlugin(Protocol):
    """The type of a task plugin that takes views or a clip; see ``TaskPlugin``."""

    def ssrl_task_info(self) -> TaskInfo: ...
    def ssrl_generate_sample(
        self, *, source: SourceFrames, rng: np.random.Generator, level: str, options: Any
    ) -> Sample: ...
    def ssrl_format_prompt(self, *, sample: Sample) -> str: ...
    def ssrl_verify_answer(self, *, answer: str, truth: str, params: Mapping[str, Any]) -> float: ...


class SourcePlugin(Protocol):
    """The type of a source plugin; see ``TaskPlugin``."""

    def ssrl_open_source(self, *, uri: str) -> ImageSource | None: ...
