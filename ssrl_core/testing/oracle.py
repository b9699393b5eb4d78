"""The test class of a plugin as a source of its oracle, for ``ssrl check``."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SSRLError
from ..plugins import InstalledPlugin
from .project import project_of

SETTINGS = ("source", "samples", "size", "options")


class Oracle(NamedTuple):
    """What a test class says about a task.

    Attributes:
        name: of the class, with its file.
        answers: the functions that ``check_task`` takes.
        settings: the ``SETTINGS`` that the class sets itself.
    """

    name: str
    answers: Mapping[str, Any]
    settings: Mapping[str, Any]


def load_oracle(path: Path, task: str) -> Oracle:
    """The oracle of the test class in a file whose ``task`` is the task. Raises SSRLError."""
    try:
        from .suite import PretextTaskTests, answers_of
    except ModuleNotFoundError as err:
        if err.name != "pytest":
            raise
        raise SSRLError(
            f"--oracle {path} needs pytest, which is not installed: pip install 'ssrl-core[testing]'"
        ) from err
    module = _imported(path)
    defined = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    found = [kind for kind in defined if issubclass(kind, PretextTaskTests) and getattr(kind, "task", None) == task]
    # A class that only changes the settings of another one, for a longer test, is not meant.
    first = [kind for kind in found if not any(other is not kind and issubclass(kind, other) for other in found)]
    if not first:
        others = sorted({kind.task for kind in defined if issubclass(kind, PretextTaskTests) and hasattr(kind, "task")})
        told = f"; there are classes for {', '.join(others)}" if others else ""
        raise SSRLError(f"{path}: no subclass of PretextTaskTests has task = {task!r}{told}")
    if len(first) > 1:
        raise SSRLError(
            f"{path}: {' and '.join(kind.__name__ for kind in first)} both have task = {task!r}, so it is not clear "
            "which one is the oracle. Move one of them into another file"
        )
    kind = first[0]
    own = {name: getattr(kind, name) for name in SETTINGS if getattr(kind, name) != getattr(PretextTaskTests, name)}
    return Oracle(f"{kind.__name__} of {os.path.relpath(path)}", answers_of(kind), own)


def _imported(path: Path) -> Any:
    """The module of a test file, imported as pytest does: with its folder on the path. Raises SSRLError."""
    if not path.is_file():
        raise SSRLError(f"--oracle {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SSRLError(f"--oracle {path}: not a file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as err:
        del sys.modules[path.stem]
        raise SSRLError(f"{path} does not import: {type(err).__name__}: {err}") from err
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def file_of(plugin: InstalledPlugin) -> Path | None:
    """The file in the project of a plugin, if that is on this machine, which tests the task with ``PretextTaskTests``.

    None if there are several.
    """
    project = project_of(plugin)
    named = re.compile(rf"^\s+task\s*(:.*)?=\s*[\"']{re.escape(plugin.name)}[\"']", re.MULTILINE)
    files = sorted((project / "tests").rglob("test_*.py")) if project else []
    texts = ((file, file.read_text(encoding="utf-8", errors="replace")) for file in files)
    found = [file for file, text in texts if "PretextTaskTests" in text and named.search(text)]
    return found[0] if len(found) == 1 else None
