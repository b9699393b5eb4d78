"""``ssrl list``: the installed tasks, and whether each of them works."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from types import FrameType
from typing import Any

from ..errors import NotAllowed, PluginError
from ..plugins import TASKS, bind
from ..plugins.catalog import offers
from ..plugins.installed import InstalledPlugin, allowed_patterns, check_allowed, claimed_twice, installed, is_allowed
from .terminal import AsJson, show, table

IMPORT_LIMIT = 10.0
"""Time limit in seconds of a plugin's import; a plugin that exceeds it is listed as broken."""
MOST_OFFERS = 5
"""Tasks of the catalog that are named at most."""


def list_tasks(*, limit: float = IMPORT_LIMIT) -> list[dict[str, Any]]:
    """A row for each installed task. Loads the tasks that may be loaded.

    Returns:
        Rows of ``task``, ``distribution``, ``distribution_version``, ``state`` (``ok``, ``broken``, ``duplicate`` or
        ``not allowed``), ``health`` (``ok`` or what is wrong), ``version``, ``summary``, ``levels`` (name -> chance),
        ``takes``, ``needs_depth``, ``needs_pose`` (see TaskInfo) and ``api`` (version of the hooks). The last seven
        are None unless the state is ``ok``.
    """
    patterns = allowed_patterns()
    rows = []
    for plugins in installed().values():
        rivals = [plugin for plugin in plugins if is_allowed(plugin, patterns)]
        for plugin in plugins:
            row = {
                "task": plugin.name,
                "distribution": plugin.distribution,
                "distribution_version": plugin.version,
                "state": "ok",
                "health": "ok",
                **dict.fromkeys(("version", "summary", "levels", "takes", "needs_depth", "needs_pose", "api")),
            }
            if plugin in rivals and len(rivals) > 1:
                row |= {"state": "duplicate", "health": claimed_twice(rivals)}
            else:
                row |= _examine(plugin, patterns, limit=limit)
            rows.append(row)
    return rows


def table_of_tasks(rows: list[dict[str, Any]]) -> str:
    """The rows of ``list_tasks`` as a table, with the chance of each task's first level."""
    if not rows:
        return "No tasks are installed."
    header = ("task", "version", "distribution", "levels", "chance", "needs", "API", "health")
    return table([header, *map(_cells, rows)])


def needs_in_words(facts: Mapping[str, Any]) -> str:
    """What a task needs of a source: ``colour``, or besides colour ``views, depth, poses``."""
    kind = [] if facts["takes"] == "image" else [facts["takes"]]
    return ", ".join(kind + ["depth"] * facts["needs_depth"] + ["poses"] * facts["needs_pose"]) or "colour"


def not_installed(tasks: Collection[str]) -> str:
    """Lines about the tasks of the catalog that are not among these, with the commands that install them.

    Without distributions that failed the last check. Empty if there are none.
    """
    offered = {
        task: distribution
        for task, (distribution, status) in offers(TASKS).items()
        if task not in tasks and status in ("passed", "not checked")
    }
    if not offered:
        return ""
    lines = [f"  {task}: pip install {distribution}" for task, distribution in islice(offered.items(), MOST_OFFERS)]
    if more := len(offered) - len(lines):
        lines.append(f"  {more} more: ssrl catalog")
    return "\n".join(["not installed, of the catalog:", *lines])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    health = row["health"] if row["state"] == "ok" else f"{row['state'].upper()}: {row['health']}"
    facts: tuple[str, ...] = ("-",) * 5
    if row["levels"]:
        chance = f"{100 * next(iter(row['levels'].values())):.3g}%"
        facts = (row["version"], " ".join(row["levels"]), chance, needs_in_words(row), row["api"])
    version, *others = facts
    return (row["task"], version, f"{row['distribution']} {row['distribution_version']}", *others, health)


def _examine(plugin: InstalledPlugin, patterns: tuple[str, ...], *, limit: float) -> dict[str, Any]:
    """The columns of a row that come from loading the plugin, or the reason why it cannot be loaded."""
    try:
        check_allowed(plugin, patterns)
        # A plugin that prints to stdout would spoil the table. Its warnings are listed under ``health``.
        with redirect_stdout(sys.stderr), warnings.catch_warnings(record=True) as warned, _time_limit(limit):
            warnings.simplefilter("always")
            task = bind(plugin)
            levels = {name: float(level.chance) for name, level in task.info.levels.items()}
    except (PluginError, _TooSlow, TypeError, ValueError) as err:
        state = "not allowed" if isinstance(err, NotAllowed) else "broken"
        return {"state": state, "health": _reason(str(err), plugin)}
    outdated = [_reason(str(w.message), plugin) for w in warned if str(w.message).startswith(f"plugin {plugin}: ")]
    return {
        "health": "; ".join(["ok", *outdated]),
        "version": task.info.version,
        "summary": task.info.summary,
        "levels": levels,
        "takes": task.info.takes,
        "needs_depth": task.info.needs_depth,
        "needs_pose": task.info.needs_pose,
        "api": task.api_version,
    }


def _reason(message: str, plugin: InstalledPlugin) -> str:
    """A message about a plugin in one line, without the plugin's name, which is in the same row."""
    lines = message.removeprefix(f"plugin {plugin}").lstrip(": ").splitlines()
    return "; ".join(line.strip() for line in lines).replace(":; ", ": ")


class _TooSlow(BaseException):
    """A BaseException, because plugins may catch Exception."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the block after so many seconds. No effect outside the main thread or without SIGALRM."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooSlow(f"has not loaded within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def command(as_json: AsJson = False) -> None:
    # For speed: pydantic would search all distributions for its own plugins, and the garbage collector would take a
    # third of the time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    rows = list_tasks()
    gc.freeze()
    show(rows, _text, as_json=as_json)


def _text(rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(filter(None, (table_of_tasks(rows), not_installed({row["task"] for row in rows}))))
