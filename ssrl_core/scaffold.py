"""``ssrl new``: a complete distribution with a small task that works, to be changed into one's own.

The template is copier's. It lies in this package, so that writing a project needs neither network nor git, and it is
reachable by git as well, at the root of the repository: a project records the repository and the release that it was
written from, so that ``copier update`` can merge later releases of the template into what the author has made of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SSRLError
from .installed import TASKS, InstalledPlugin, installed

if TYPE_CHECKING:
    from PIL import Image

    from .plugins import Task
    from .types import Sample

TEMPLATE = Path(__file__).with_name("template")
ANSWERS = ".copier-answers.yml"
LICENSES = ("Apache-2.0", "MIT", "BSD-3-Clause")
PREFIX = "ssrl-plugin-"
_PICTURE_SIZE = 224
_PICTURE_TRIES = 40


def new_project(name: str, folder: Path, *, author: str = "", license: str = LICENSES[0], repository: str = "") -> Path:
    """The folder of a new distribution, ``folder / "ssrl-plugin-<name>"``; it must not exist yet.

    Args:
        name: of the task, as ``rotated-view``, ``rotated_view`` or ``ssrl-plugin-rotated-view``.
        folder: in which the distribution's own folder is made.
        author: of the copyright; "The authors of ssrl-plugin-<name>" where empty.
        license: one of LICENSES.
        repository: its URL; may be empty.

    Raises:
        SSRLError: an argument cannot be, the name is taken, the folder exists, or copier is not installed.
    """
    short = task_name(name)
    task = short.replace("-", "_")
    if others := [plugin for plugin in installed(TASKS).get(task, []) if plugin.distribution != PREFIX + short]:
        raise SSRLError(f"the task {task!r} exists: {others[0].distribution} is installed. Choose another name")
    project = folder / (PREFIX + short)
    if project.exists():
        raise SSRLError(f"{project} exists, and is left as it is. Choose another name, or another folder with -o")
    try:
        from copier import run_copy
    except ImportError as err:
        raise SSRLError('ssrl new needs copier, which is not installed: pip install "ssrl-core[new]"') from err
    if license not in LICENSES:
        raise SSRLError(f"license {license!r}: choose one of {', '.join(LICENSES)}")
    for text, what in ((author, "author"), (repository, "repository")):
        if re.search(r'["\\\n{}]', text):  # it goes into TOML, YAML and Jinja
            raise SSRLError(f"{what} {text!r} has a quote, a backslash, a brace or a line break in it")

    answers = {"name": short, "license": license, "repository": repository.rstrip("/")}
    if author:
        answers["author"] = author
    run_copy(str(TEMPLATE), project, data=answers, defaults=True, quiet=True)
    _record_template(project / ANSWERS)
    write_picture(load_project(project), project / "gallery.jpg")
    return project


def task_name(name: str) -> str:
    """The name of a task with hyphens, from any of its forms. Raises SSRLError where it cannot be one."""
    short = name.replace("_", "-").removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", short):
        why = "small letters, digits and single hyphens, a letter first"
        raise SSRLError(f"{name!r} cannot be the name of a task: it must have {why}, e.g. rotated-view")
    return short


def load_project(folder: Path) -> Task:
    """The task of a project that is not installed. Raises a PluginError."""
    import tomllib

    from .plugins import bind

    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, module),) = project["entry-points"][TASKS].items()
    entry = metadata.EntryPoint(name, module, TASKS)
    sys.path.insert(0, str(folder))
    try:
        return bind(InstalledPlugin(name, project["name"], project["version"], (), entry))
    finally:
        sys.path.remove(str(folder))


def write_picture(task: Task, path: Path, *, samples: int = 2) -> None:
    """Write a picture of that many samples of each level, on the built-in synthetic source, each with its truth."""
    from PIL import Image

    strips = [_strip(f"level {level}: {sample.truth}", sample) for level, sample in _samples(task, samples)]
    page = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    try:
        page.save(path, quality=85)
    except ValueError as err:
        raise SSRLError(f"{path}: {err}; take for example .png or .jpg") from err


def _samples(task: Task, count: int) -> Iterator[tuple[str, Sample]]:
    from .errors import SourceRejected
    from .seeding import generator
    from .sources import load_image, open_source, to_working_size

    images, options = open_source("synthetic:"), task.options_model()
    for level in task.info.levels:
        reasons: list[str] = []
        made = 0
        for index in range(_PICTURE_TRIES * count):
            rng = generator(0, stream=f"{task.name}/{level}/picture", index=index)
            try:
                image_id = images.image_id(int(rng.integers(len(images))))
                image = load_image(images, image_id, depth=task.info.needs_depth)
                source = to_working_size(image, _PICTURE_SIZE, rng=rng)
                yield level, task.generate_sample(source, rng=rng, level=level, options=options)
            except SourceRejected as err:
                reasons.append(err.reason)
                continue
            made += 1
            if made == count:
                break
        else:
            raise SSRLError(f"{task.name}: no picture of level {level!r}, images are rejected: {sorted(set(reasons))}")


def _strip(caption: str, sample: Sample) -> Image.Image:
    """The pictures of a sample side by side, at their sizes, with a caption above."""
    from PIL import Image

    from .drawing import draw_text

    band, gap = 24, 8
    width = sum(image.width + gap for image in sample.images) + gap
    strip = Image.new("RGB", (max(width, 160), band + max(image.height for image in sample.images) + gap), "white")
    draw_text(strip, caption, centre=(80, band / 2), size=14)
    left = gap
    for image in sample.images:
        strip.paste(image, (left, band))
        left += image.width + gap
    return strip


def _record_template(path: Path) -> None:
    """Name the repository and the release of ssrl-core as the template's, instead of a path of this machine."""
    import yaml

    from . import __version__

    text = path.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    answers = {key: value for key, value in yaml.safe_load(text).items() if not key.startswith("_")}
    if url := _repository():
        answers |= {"_src_path": url, "_commit": f"v{__version__}"}
    path.write_text("\n".join([*comments, yaml.safe_dump(answers)]), encoding="utf-8")


def _repository() -> str | None:
    """The URL of ssrl-core's repository for git, by the metadata of its distribution; None where it states none."""
    for line in metadata.metadata("ssrl-core").get_all("Project-URL") or ():
        label, _, url = line.partition(", ")
        if label.casefold() == "repository":
            return f"git+{url}"
    return None
