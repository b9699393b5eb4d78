"""``ssrl new``: a complete distribution with a small working task, which the author then changes.

The template is written for copier. It is part of this package, so writing a project needs neither network nor git. It
can also be fetched by git from the root of the repository. A project records the repository and the release of its
template, so that ``copier update`` can merge later releases of the template into the author's work.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from .. import __version__
from ..errors import SSRLError
from ..plugins import Task, bind
from ..plugins.installed import TASKS, InstalledPlugin, installed
from ..types import Takes
from .show import write_picture

TEMPLATE = Path(__file__).parents[1] / "template"
ANSWERS = ".copier-answers.yml"
PREFIX = "ssrl-plugin-"
License = Literal["Apache-2.0", "MIT", "BSD-3-Clause"]


def new_project(
    name: str,
    folder: Path,
    *,
    kind: Takes = "image",
    author: str = "",
    license: License = "Apache-2.0",
    repository: str = "",
) -> Path:
    """The folder of a new distribution, ``folder / "ssrl-plugin-<name>"``; it must not exist yet.

    Args:
        name: of the task, as ``tilted-view``, ``tilted_view`` or ``ssrl-plugin-tilted-view``.
        folder: the parent of the new folder.
        kind: what a sample is made of; see ``TaskInfo.takes``.
        author: copyright holder; if empty, "The authors of ssrl-plugin-<name>".
        license: SPDX identifier.
        repository: URL of the repository, or empty.

    Raises:
        SSRLError: an argument is invalid, the name is taken, the folder exists, or copier is not installed.
    """
    short = task_name(name)
    task = short.replace("-", "_")
    if others := [plugin for plugin in installed(TASKS).get(task, []) if plugin.distribution != PREFIX + short]:
        raise SSRLError(f"the task {task!r} exists: {others[0].distribution} is installed. Choose another name")
    project = folder / (PREFIX + short)
    if project.exists():
        raise SSRLError(f"{project} exists and is not changed. Choose another name, or another folder with -o")
    try:
        from copier import run_copy
    except ImportError as err:
        raise SSRLError('ssrl new needs copier, which is not installed: pip install "ssrl-core[new]"') from err
    if license not in get_args(License):
        raise SSRLError(f"license {license!r}: choose one of {', '.join(get_args(License))}")
    for text, what in ((author, "author"), (repository, "repository")):
        if re.search(r'["\\\n{}]', text):  # the text is inserted into TOML, YAML and Jinja
            raise SSRLError(f"{what} {text!r} contains a quote, a backslash, a brace or a line break")

    answers = {"name": short, "kind": kind, "license": license, "repository": repository.rstrip("/")}
    if author:
        answers["author"] = author
    run_copy(str(TEMPLATE), project, data=answers, defaults=True, quiet=True)
    _record_template(project / ANSWERS)
    write_picture(load_project(project), project / "gallery.jpg")
    return project


def task_name(name: str) -> str:
    """The name of a task with hyphens, from any of its forms. Raises SSRLError if no task can have it."""
    short = name.replace("_", "-").removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", short):
        rule = "small letters, digits and single hyphens, beginning with a letter"
        raise SSRLError(f"{name!r} cannot be the name of a task. A name consists of {rule}, e.g. tilted-view")
    return short


def load_project(folder: Path) -> Task:
    """The task of a project that is not installed. Raises a PluginError."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, module),) = project["entry-points"][TASKS].items()
    entry = metadata.EntryPoint(name, module, TASKS)
    sys.path.insert(0, str(folder))
    try:
        return bind(InstalledPlugin(name, project["name"], project["version"], (), entry))
    finally:
        sys.path.remove(str(folder))


def _record_template(path: Path) -> None:
    """Name the repository and the release of ssrl-core as the template, instead of a path of this machine."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("_")]
    if url := _repository():
        lines += [f"_src_path: {url}", f"_commit: v{__version__}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _repository() -> str | None:
    """The URL of ssrl-core's repository for git, from the metadata of its distribution; None if they have none."""
    for line in metadata.metadata("ssrl-core").get_all("Project-URL") or ():
        label, _, url = line.partition(", ")
        if label.casefold() == "repository":
            return f"git+{url}"
    return None


def command(
    name: Annotated[str, typer.Argument(help="Name of the task, e.g. tilted-view.")],
    folder: Annotated[Path, typer.Option("-o", help="Parent of the new folder.")] = Path(),
    views: Annotated[bool, typer.Option("--views", help="A task on several views of a scene, with poses.")] = False,
    clip: Annotated[bool, typer.Option("--clip", help="A task on a clip: frames in the order of time.")] = False,
    author: Annotated[str, typer.Option(help="Copyright holder.")] = "",
    license: Annotated[License, typer.Option(help="License of the distribution.")] = "Apache-2.0",
    repository: Annotated[str, typer.Option(help="URL of the repository.")] = "",
) -> None:
    if views and clip:
        raise SSRLError("--views and --clip: choose one of them")
    kind: Takes = "views" if views else "clip" if clip else "image"
    project = new_project(name, folder, kind=kind, author=author, license=license, repository=repository)
    typer.echo(f"{project}\n  next: cd {project} && pip install -e . (see CONTRIBUTING.md of ssrl-core)")
