"""Load plugins.

    installed   which plugins are installed and may be loaded
    catalog     which distributions can be installed
    hooks       whether a plugin fulfils the hook specifications
    timelimit   calls with a time limit, in threads
    isolated    a verifier in a subprocess

Only the requested plugin and its wrappers are imported. Every error names the distribution and its version. Each task
has a plugin manager of its own, so that no hook of another plugin can answer a call.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, get_args

import pluggy

from .. import hookspecs
from ..errors import BrokenPlugin, IncompatiblePlugin, PluginFailed, SourceRejected
from .hooks import SPECS, Namespace, hooks_of, problems, register
from .installed import (
    BUILT_IN,
    SCORERS,
    SOURCES,
    TASKS,
    WRAPPERS,
    InstalledPlugin,
    check_requirement,
    find,
    installed,
    shadows,
    upgrade_line,
)
from .isolated import Verifier
from .timelimit import Outcome, TimeLimitExceeded, call_all_within

if TYPE_CHECKING:
    import numpy as np

    from ..options import Options
    from ..types import Sample, SourceFrames, SourceImage, TaskInfo

__all__ = ["SOURCES", "TASKS", "WRAPPERS", "InstalledPlugin", "Task", "bind", "find", "installed", "load_task"]

TASK_HOOKS = ("ssrl_task_info", "ssrl_generate_sample", "ssrl_format_prompt", "ssrl_verify_answer")
SOURCE_HOOKS = ("ssrl_open_source",)

_FAILURE = (Exception, SystemExit)  # a plugin must not end the process


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded task plugin in its wrappers. Errors of its hooks name it.

    Attributes:
        name: of the task.
        plugin: its distribution and entry point.
        info: of the task, see ``ssrl_task_info``.
        hooks: the hooks to call, by name.
        wrappers: names of the wrappers around the task, innermost first.
        verifier: the verifier in a subprocess, if one is needed.
    """

    name: str
    plugin: InstalledPlugin
    info: TaskInfo
    hooks: Any
    wrappers: tuple[str, ...]
    verifier: Verifier = field(repr=False, compare=False)

    @property
    def built_in(self) -> str:
        """The name of the built-in task that has this name in its mix; "" for an installed task."""
        return self.plugin.entry_point.name if self.plugin.entry_point.group == BUILT_IN else ""

    @property
    def api_version(self) -> str:
        """The version of the hooks that the plugin requires, e.g. ``"1.0"``."""
        return _declared_api(self.plugin)

    @property
    def options_model(self) -> type[Options]:
        """The model of the task's options; it has no fields if there are no options."""
        from ..options import Options

        return self.info.options or Options

    def generate_sample(
        self, source: SourceImage | SourceFrames, *, rng: np.random.Generator, level: str, options: Options
    ) -> Sample:
        """One sample; see ``ssrl_generate_sample``. Raises SourceRejected or PluginFailed."""
        from PIL import Image

        from ..types import Sample

        try:
            sample = self.hooks.ssrl_generate_sample(source=source, rng=rng, level=level, options=options)
        except SourceRejected as rejected:
            # The traceback would keep the arrays of the attempt alive until garbage collection.
            raise rejected.with_traceback(None) from None
        except PluginFailed:  # of the source that reads the frames
            raise
        except _FAILURE as err:
            what = f"{_raised(err)}, on image {source.id!r} at level {level!r}"
            raise self._failed("ssrl_generate_sample", what) from err
        if not isinstance(sample, Sample) or not sample.images or not isinstance(sample.truth, str):
            raise self._failed("ssrl_generate_sample", f"returned {sample!r:.200}, not a Sample with images and truth")
        if not isinstance(sample.images, tuple | list) or not all(isinstance(i, Image.Image) for i in sample.images):
            raise self._failed(
                "ssrl_generate_sample",
                f"returned {sample.images!r:.200} for images, not a tuple of Pillow images; "
                "ssrl_core.drawing.to_image makes one of an array",
            )
        try:
            # The round trip through JSON gives prompt and verifier the same params everywhere.
            return replace(sample, params=json.loads(json.dumps(dict(sample.params), allow_nan=False)))
        except (TypeError, ValueError) as err:
            raise self._failed("ssrl_generate_sample", f"params of a sample are not plain JSON: {err}") from err

    def format_prompt(self, sample: Sample) -> str:
        """The question; see ``ssrl_format_prompt``. Raises PluginFailed."""
        try:
            prompt = self.hooks.ssrl_format_prompt(sample=sample)
        except _FAILURE as err:
            raise self._failed("ssrl_format_prompt", _raised(err)) from err
        if not isinstance(prompt, str) or prompt.count("<image>") != len(sample.images):
            raise self._failed(
                "ssrl_format_prompt", f"must return text with {len(sample.images)} '<image>', got {prompt!r:.200}"
            )
        return prompt

    def verify_answer(self, answer: str, *, truth: str, params: Mapping[str, Any], limit: float | None = None) -> float:
        """The score of an answer in [0, 1]; see ``ssrl_verify_answer``. Raises PluginFailed.

        Args:
            answer: what the model wrote into the box.
            truth, params: the sample's.
            limit: in seconds, see ``verify_answers``. If None, the call stays in this thread and may never return.
        """
        if limit is not None:
            (outcome,) = self.verify_answers([(answer, truth, params)], limit=limit)
            if isinstance(outcome, PluginFailed):
                raise outcome
            return outcome
        try:
            score = self.hooks.ssrl_verify_answer(answer=answer, truth=truth, params=params)
        except _FAILURE as err:
            raise self._failed("ssrl_verify_answer", f"{_raised(err)}, on answer {answer!r:.200}") from err
        if not isinstance(score, float | int) or not math.isfinite(score) or not 0 <= score <= 1:
            raise self._failed("ssrl_verify_answer", f"returned {score!r:.200}, not a number in [0, 1]")
        return float(score)

    def verify_answers(
        self, cases: Sequence[tuple[str, str, Mapping[str, Any]]], *, limit: float
    ) -> list[float | PluginFailed]:
        """The score of each (answer, truth, params), or the failure to score it; see ``verify_answer``.

        The verifier runs in another thread, until it exceeds the limit for the first time. That call may take longer:
        a regular expression that backtracks cannot be interrupted. From then on the verifier runs in a subprocess,
        which is killed at the limit. A thread adds 20 to 60 microseconds to a call, a subprocess up to a millisecond.
        """
        outcomes: list[Outcome] = []
        if not self.verifier.needed:
            calls = [partial(self.verify_answer, answer, truth=truth, params=params) for answer, truth, params in cases]
            outcomes, exceeded = call_all_within(limit, calls, owner=self.name)
            self.verifier.needed = self.verifier.needed or exceeded
        outcomes += [self.verifier.score(*case, limit=limit) for case in cases[len(outcomes) :]]
        results: list[float | PluginFailed] = []
        for (answer, *_), (score, error) in zip(cases, outcomes, strict=True):
            if isinstance(error, TimeLimitExceeded | ChildProcessError):
                error = self._failed("ssrl_verify_answer", f"{error}, on answer {answer!r:.200}")
            elif error is not None and not isinstance(error, PluginFailed):
                raise error
            results.append(score if error is None else error)
        return results

    def _failed(self, hook: str, what: str) -> PluginFailed:
        within = f", in {', '.join(self.wrappers)}" if self.wrappers else ""
        return PluginFailed(f"plugin {self.plugin}{within}: {hook} {what}")


@cache
def load_task(name: str, *, plugin: str = "", wrappers: tuple[str, ...] = ()) -> Task:
    """The installed task of a name, imported. Raises a PluginError that names its distribution.

    Args:
        name: of the entry point in the group ``ssrl``.
        plugin: name of a built-in task, which then gets this name; "" for an installed one.
        wrappers: names in the group ``ssrl.wrappers``, innermost first.
    """
    return bind(replace(find(plugin, group=BUILT_IN), name=name) if plugin else find(name), wrappers=wrappers)


def bind(plugin: InstalledPlugin, *, wrappers: tuple[str, ...] = ()) -> Task:
    """The task of a plugin, imported; see ``load_task``."""
    hooks = _load(plugin, TASK_HOOKS, wrappers=wrappers)
    try:
        info = hooks.ssrl_task_info()
    except _FAILURE as err:
        raise BrokenPlugin(f"plugin {plugin}: ssrl_task_info {_raised(err)}") from err
    if fault := _fault_of(info):
        raise BrokenPlugin(f"plugin {plugin}: ssrl_task_info {fault}; got {info!r:.300}")
    return Task(plugin.name, plugin, info, hooks, wrappers, Verifier(plugin, wrappers))


@cache
def load_scorer(name: str) -> Callable[[str, str], float]:
    """The installed scorer of a name: a function from answer and truth to a score in [0, 1]. Raises PluginError."""
    plugin = find(name, group=SCORERS)
    check_requirement(plugin)
    try:
        scorer = plugin.entry_point.load()
    except _FAILURE as err:
        raise BrokenPlugin(f"scorer {plugin} does not import: {type(err).__name__}: {err}") from err
    if not callable(scorer):
        raise BrokenPlugin(f"scorer {plugin}: {plugin.entry_point.value} is not a function of answer and truth")
    return scorer  # type: ignore[no-any-return]


@cache
def load_source_hooks(scheme: str) -> Any:
    """The hooks of the source plugin of a URI scheme. Raises a PluginError that names its distribution."""
    return _load(find(scheme, group=SOURCES), SOURCE_HOOKS)


def _load(plugin: InstalledPlugin, required: tuple[str, ...], *, wrappers: tuple[str, ...] = ()) -> Any:
    manager = pluggy.PluginManager("ssrl")
    _register(manager, plugin, required)
    for name in dict.fromkeys(wrappers):
        _register(manager, find(name, group=WRAPPERS), ())
    manager.add_hookspecs(Namespace(SPECS))
    return manager.hook


def _register(manager: pluggy.PluginManager, plugin: InstalledPlugin, required: tuple[str, ...]) -> None:
    """Import a plugin, check it, and register its hooks."""
    check_requirement(plugin)
    try:
        found = hooks_of(plugin.entry_point.load())
    except _FAILURE as err:
        raise BrokenPlugin(
            f"plugin {plugin} does not import: {type(err).__name__}: {err}\n"
            f"  entry point: {plugin.entry_point.value}\n"
            f"  repair or uninstall it: pip uninstall {plugin.distribution}"
        ) from err
    for fault in shadows(plugin):
        warnings.warn(f"plugin {plugin}: {fault}", stacklevel=2)
    _check_api(plugin)
    mistakes = problems(found, required=required, wrapper=plugin.entry_point.group == WRAPPERS)
    if mistakes:
        raise BrokenPlugin(f"plugin {plugin} does not fulfil the hook specifications:\n  " + "\n  ".join(mistakes))
    register(manager, found, owner=str(plugin))


def _check_api(plugin: InstalledPlugin) -> None:
    """Raise IncompatiblePlugin if a plugin requires another version of the hooks."""
    declared = _declared_api(plugin)
    major, minor = hookspecs.API_VERSION
    try:
        needed = tuple(map(int, declared.split(".")))
        if len(needed) != 2:
            raise ValueError
    except (AttributeError, ValueError):
        raise BrokenPlugin(f"plugin {plugin}: SSRL_API must be text such as '1.0', not {declared!r:.80}") from None
    if needed[0] != major or needed[1] > minor:
        raise IncompatiblePlugin(
            f"plugin {plugin} needs version {declared} of the hooks, and this ssrl-core has {major}.{minor}\n"
            f"  {upgrade_line(plugin)}"
        )


def _declared_api(plugin: InstalledPlugin) -> str:
    return getattr(sys.modules.get(plugin.entry_point.module), "SSRL_API", "1.0")


def _fault_of(info: object) -> str | None:
    """The mistake in the value that ``ssrl_task_info`` returned; None if there is none."""
    from ..types import Level, Takes, TaskInfo

    if not isinstance(info, TaskInfo) or not isinstance(info.levels, Mapping) or not info.levels:
        return "must return a TaskInfo with levels"
    if not isinstance(info.version, str) or not all(isinstance(name, str) for name in info.levels):
        return "must return version and names of levels as text"
    if not all(isinstance(level, Level) for level in info.levels.values()):
        return "must return levels of type Level"
    if info.takes not in get_args(Takes):
        return f"must return one of {', '.join(get_args(Takes))} for takes"
    if info.options is not None:
        from ..options import Options

        if not isinstance(info.options, type) or not issubclass(info.options, Options):
            return "must return options that are a subclass of ssrl_core.Options"
    return None


def _raised(err: BaseException) -> str:
    return f"raised {type(err).__name__}" + (f": {err}" if str(err) else "")
