"""Checks a plugin object against the hook specifications. pluggy itself finds only some of the mistakes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

import pluggy

from .. import hookspecs
from ..errors import did_you_mean

Hooks = Mapping[str, Callable[..., object]]
SPECS: Hooks = {name: fn for name, fn in vars(hookspecs).items() if hasattr(fn, "ssrl_spec")}
"""The hook specifications by name."""


class Namespace(ModuleType):
    """Hooks as a module without other names. pluggy inspects every name, which takes long for many plugins."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__("hooks")
        vars(self).update(hooks)

    def __dir__(self) -> Iterable[str]:
        return [name for name in vars(self) if name.startswith("ssrl_")]


def hooks_of(plugin: object) -> Hooks:
    """The functions of a plugin object with names of hooks, by name; without old names of hooks that it also has."""
    found = {name: getattr(plugin, name) for name in dir(plugin) if name.startswith("ssrl_")}
    found = {name: function for name, function in found.items() if inspect.isroutine(function)}
    return {name: found[name] for name in found if name not in hookspecs.DEPRECATED or _new_name(name) not in found}


def problems(found: Hooks, *, required: tuple[str, ...], wrapper: bool = False) -> list[str]:
    """The mistakes in the hooks of a plugin, one line each.

    Args:
        found: the hooks by name.
        required: the hooks that the plugin must have, under the new or an old name.
        wrapper: whether the plugin is a wrapper, so that all of its hooks must be wrappers.
    """
    present = {_new_name(name) for name in found}
    lines = [f"{name}: missing" for name in required if name not in present]
    if wrapper and not found:
        lines.append(f"it has no hook to wrap; there are: {', '.join(SPECS)}")
    for name, function in found.items():
        if (new := _new_name(name)) not in SPECS:
            lines.append(f"{name}: there is no such hook.{did_you_mean(name, SPECS)}")
            continue
        marks = getattr(function, "ssrl_impl", None)
        if marks is None:
            lines.append(f"{name}: not marked; write @hookimpl (from ssrl_core) above it")
        elif wrapper and not (marks["wrapper"] and inspect.isgeneratorfunction(function)):
            lines.append(f"{name}: a hook of a wrapper is marked with @hookimpl(wrapper=True) and yields once")
        elif not wrapper and (marks["wrapper"] or marks["hookwrapper"]):
            lines.append(f"{name}: only plugins of the group ssrl.wrappers wrap; write @hookimpl without wrapper")
        known = inspect.signature(SPECS[new]).parameters
        for argument, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # pluggy passes nothing to it
                continue
            if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                lines.append(
                    f"{name}: argument {argument!r} must be positional or keyword; pluggy does not pass it otherwise"
                )
            elif _new_argument(new, argument) not in known:
                lines.append(f"{name}: no argument {argument!r} exists; there are: {', '.join(known) or 'none'}")
            elif parameter.default is not parameter.empty:
                lines.append(f"{name}: argument {argument!r} has a default value, so pluggy may never pass it")
    return lines


def register(manager: pluggy.PluginManager, found: Hooks, *, owner: str) -> None:
    """Register hooks under their new names, before the manager has specifications. Warn of each old name."""
    plugin = Namespace({_new_name(name): function for name, function in found.items()})
    manager.register(plugin, name=owner)
    for name in found:
        _warn(owner, name)
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                old = implementation.argnames
                for argument in old:
                    _warn(owner, f"{caller.name}.{argument}")
                # pluggy passes values by these names and in this order; the function keeps its own names.
                implementation.argnames = tuple(_new_argument(caller.name, argument) for argument in old)  # type: ignore[misc]


def _new_name(name: str) -> str:
    return hookspecs.DEPRECATED[name].use if name in hookspecs.DEPRECATED else name


def _new_argument(hook: str, argument: str) -> str:
    return _new_name(f"{hook}.{argument}").removeprefix(f"{hook}.")


def _warn(owner: str, name: str) -> None:
    if name in hookspecs.DEPRECATED:
        gone = hookspecs.DEPRECATED[name]
        what = f"plugin {owner}: {name} works until version {gone.until} of the hooks; use {gone.use} instead"
        warnings.warn(what, DeprecationWarning, stacklevel=2)
