"""Find, load and bind plugins.

Listing reads metadata and imports nothing. Loading imports only the plugin that is asked for, and every failure
names the distribution and its version. Each task is bound to a plugin manager of its own, so that the hooks of one
task can never answer for another.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .errors import BrokenPlugin, DuplicatePlugin, PluginFailed, SourceRejected, UnknownPlugin, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from .options import Options
    from .types import Sample, SourceImage, TaskInfo

TASKS = "ssrl"
SOURCES = "ssrl.sources"
TASK_HOOKS = ("ssrl_task_info", "ssrl_generate_sample", "ssrl_format_prompt", "ssrl_verify_answer")
SOURCE_HOOKS = ("ssrl_open_source",)


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A plugin as its distribution's metadata describes it; nothing of it has been imported."""

    name: str
    distribution: str
    version: str
    summary: str
    entry_point: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.name!r} of {self.distribution} {self.version}"


def installed(group: str = TASKS) -> dict[str, list[InstalledPlugin]]:
    """All installed plugins of a group by name, sorted. A name with several distributions has several entries."""
    found: dict[str, dict[str, InstalledPlugin]] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == group:
                # Remains of a removed distribution have entry points and no metadata.
                name, version, summary = (distribution.metadata[key] or "" for key in ("Name", "Version", "Summary"))
                plugin = InstalledPlugin(entry.name, name or "(no name)", version or "(no version)", summary, entry)
                # The first on sys.path is the one that an import would find.
                found.setdefault(entry.name, {}).setdefault(_canonical(plugin.distribution), plugin)
    return {name: list(by_distribution.values()) for name, by_distribution in sorted(found.items())}


def find(name: str, *, group: str = TASKS) -> InstalledPlugin:
    """The one installed plugin of that name. Raises UnknownPlugin or DuplicatePlugin."""
    known = installed(group)
    if name not in known:
        kind = "task" if group == TASKS else "image source"
        distribution = "ssrl-plugin-" + name.replace("_", "-")
        raise UnknownPlugin(
            f"no installed plugin provides the {kind} {name!r}.{did_you_mean(name, known)}\n"
            f"  installed: {', '.join(known) or 'none'}\n"
            f"  to install it, if that is its name: pip install {distribution}"
        )
    candidates = known[name]
    if len(candidates) > 1:
        claims = " and ".join(f"{c.distribution} {c.version} ({c.entry_point.value})" for c in candidates)
        raise DuplicatePlugin(f"{name!r} is claimed by {claims}. Uninstall all but one of them.")
    return candidates[0]


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded task plugin whose hooks are called with their failures attributed to it."""

    name: str
    plugin: InstalledPlugin
    info: TaskInfo
    hooks: Any

    @property
    def options_model(self) -> type[Options]:
        """The model of the task's options; one without fields where it has none."""
        from .options import Options

        return self.info.options or Options

    def generate_sample(self, source: SourceImage, *, rng: np.random.Generator, level: str, options: Options) -> Sample:
        """One sample; see ``ssrl_generate_sample``. Raises SourceRejected or PluginFailed."""
        from .types import Sample

        try:
            sample = self.hooks.ssrl_generate_sample(source=source, rng=rng, level=level, options=options)
        except SourceRejected:
            raise
        except Exception as err:
            what = f"{_raised(err)} on image {source.id!r}, level {level!r}"
            raise self._failed("ssrl_generate_sample", what) from err
        if not isinstance(sample, Sample) or not sample.images or not isinstance(sample.truth, str):
            raise self._failed("ssrl_generate_sample", f"returned {sample!r:.200}, not a Sample with images and truth")
        try:
            # Here, so that prompt and verifier see the same params in training, evaluation and preview.
            return replace(sample, params=json.loads(json.dumps(dict(sample.params))))
        except (TypeError, ValueError) as err:
            raise self._failed("ssrl_generate_sample", f"params of a sample are not plain JSON: {err}") from err

    def format_prompt(self, sample: Sample) -> str:
        """The question; see ``ssrl_format_prompt``. Raises PluginFailed."""
        try:
            prompt = self.hooks.ssrl_format_prompt(sample=sample)
        except Exception as err:
            raise self._failed("ssrl_format_prompt", _raised(err)) from err
        if not isinstance(prompt, str) or prompt.count("<image>") != len(sample.images):
            raise self._failed(
                "ssrl_format_prompt", f"must return text with {len(sample.images)} '<image>', got {prompt!r:.200}"
            )
        return prompt

    def verify_answer(self, answer: str, *, truth: str, params: Mapping[str, Any]) -> float:
        """The score of an answer in [0, 1]; see ``ssrl_verify_answer``. Raises PluginFailed."""
        try:
            score = self.hooks.ssrl_verify_answer(answer=answer, truth=truth, params=params)
        except Exception as err:
            raise self._failed("ssrl_verify_answer", f"{_raised(err)} on answer {answer!r:.200}") from err
        if not isinstance(score, float | int) or not math.isfinite(score) or not 0 <= score <= 1:
            raise self._failed("ssrl_verify_answer", f"returned {score!r:.200}, not a number in [0, 1]")
        return float(score)

    def _failed(self, hook: str, what: str) -> PluginFailed:
        return PluginFailed(f"plugin {self.plugin}: {hook} {what}")


@cache
def load_task(name: str) -> Task:
    """Import and bind the task of that name. Raises a PluginError that names its distribution."""
    from .types import Level, TaskInfo

    plugin = find(name)
    hooks = _load(plugin, TASK_HOOKS)
    try:
        info = hooks.ssrl_task_info()
    except Exception as err:
        raise BrokenPlugin(f"plugin {plugin}: ssrl_task_info {_raised(err)}") from err
    if not isinstance(info, TaskInfo) or not info.levels:
        raise BrokenPlugin(f"plugin {plugin}: ssrl_task_info must return a TaskInfo with levels, got {info!r:.200}")
    if not isinstance(info.version, str) or not all(
        isinstance(name, str) and isinstance(level, Level) for name, level in info.levels.items()
    ):
        raise BrokenPlugin(
            f"plugin {plugin}: ssrl_task_info: version and names of levels must be text, and levels of type Level; "
            f"got {info!r:.300}"
        )
    return Task(name, plugin, info, hooks)


@cache
def load_source_hooks(scheme: str) -> Any:
    """Import the source plugin of that URI scheme; its hooks. Raises a PluginError that names its distribution."""
    return _load(find(scheme, group=SOURCES), SOURCE_HOOKS)


def _load(plugin: InstalledPlugin, required: tuple[str, ...]) -> Any:
    try:
        module = plugin.entry_point.load()
    except Exception as err:
        raise BrokenPlugin(
            f"plugin {plugin} does not import: {type(err).__name__}: {err}\n"
            f"  entry point: {plugin.entry_point.value}\n"
            f"  repair or uninstall it: pip uninstall {plugin.distribution}"
        ) from err
    problems = _problems(module, required)
    if problems:
        raise BrokenPlugin(f"plugin {plugin} does not fulfil the hook specifications:\n  " + "\n  ".join(problems))
    manager = pluggy.PluginManager("ssrl")
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin.name)
    return manager.hook


def _problems(module: object, required: tuple[str, ...]) -> list[str]:
    """What keeps a plugin object from being usable. pluggy itself finds only some of these."""
    specs = {name: fn for name, fn in vars(hookspecs).items() if hasattr(fn, "ssrl_spec")}
    found = {name: getattr(module, name) for name in dir(module) if name.startswith("ssrl_")}
    found = {name: fn for name, fn in found.items() if inspect.isroutine(fn)}
    problems = [f"{name}: missing" for name in required if name not in found]
    for name, function in found.items():
        if name not in specs:
            problems.append(f"{name}: there is no such hook.{did_you_mean(name, specs)}")
            continue
        if not hasattr(function, "ssrl_impl"):
            problems.append(f"{name}: not marked; write @hookimpl (from ssrl_core) above it")
        known = inspect.signature(specs[name]).parameters
        for argument, parameter in inspect.signature(function).parameters.items():
            if argument not in known:
                problems.append(f"{name}: no argument {argument!r} exists; there are: {', '.join(known) or 'none'}")
            elif parameter.default is not parameter.empty:
                problems.append(f"{name}: argument {argument!r} has a default value, so pluggy would never pass it")
    return problems


def _raised(err: Exception) -> str:
    return f"raised {type(err).__name__}: {err}"


def _canonical(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
