"""Pages of the documentation that are made of something else: README, CONTRIBUTING, commands, tasks, the catalog.

Called by mkdocs; see ``hooks`` in mkdocs.yml.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ssrl_core.cli.catalog import provided, state
from ssrl_core.plugins.catalog import SHIPPED, Catalog, Entry, read
from ssrl_core.testing.badge import badge

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""File of the repository -> page of the site."""

_drawn = tempfile.TemporaryDirectory()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that have no file below docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if page == "index.md":  # the whole width for its figure
            text = f"---\nhide: [toc]\n---\n{text}"
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "options.md", content=options()))
    text = (
        "# Gallery\n\nTwo samples of every level on procedural rooms, as `ssrl show TASK --picture FILE` draws them.\n"
    )
    for task, picture in pictures(Path(_drawn.name)).items():
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
        text += f"\n## {task}\n\n![Samples of {task}](gallery/{picture.name})\n"
    files.append(File.generated(config, "gallery.md", content=text))
    listed = read(SHIPPED)
    files.append(File.generated(config, "catalog.md", content=catalog_page(listed)))
    for name, entry in listed.distributions.items():
        files.append(File.generated(config, f"catalog/{name}.svg", content=catalog_badge(entry)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Replace links to files of the repository that the site does not have by their paths."""
    from_root = page.file.src_uri in PAGES.values()

    def replaced(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        if re.match(r"https?:|#|mailto:", target):
            return link[0]
        path, _, anchor = target.partition("#")
        place = (ROOT if from_root else ROOT / "docs") / path
        inside = place.resolve().relative_to(ROOT)
        found = PAGES.get(str(inside)) or (inside.relative_to("docs") if inside.parts[0] == "docs" else None)
        if found is None:
            return f"{text} (`{inside}`)" if text.strip("`") != str(inside) else f"`{inside}`"
        return f"{link[0][0] if link[0].startswith('!') else ''}[{text}]({found}{'#' + anchor if anchor else ''})"

    parts = re.split(r"(```.*?```|~~~.*?~~~)", markdown, flags=re.DOTALL)
    parts[::2] = [re.sub(r"!?\[([^\]]+)\]\(([^)\s]+)\)", replaced, part) for part in parts[::2]]
    return "".join(parts)


def catalog_page(catalog: Catalog) -> str:
    """The page with every entry of the catalog: what it provides and needs, and what the last check found."""
    lines = [
        "# Catalog",
        "",
        f"Distributions that can be installed beside `ssrl-core`, as of {catalog.updated}. Each week each is installed",
        "in a clean environment, and [`ssrl check`](conformance.md) checks its tasks. `ssrl catalog` prints this list.",
        "[Add yours](contributing.md#the-catalog).",
    ]
    entries = sorted(catalog.distributions.items())
    lines += ["", "| distribution | provides | needs | check |", "|---|---|---|---|"]
    for name, entry in entries:
        cells = (f"[{name}](#{name})", provided(entry, mark="`"), ", ".join(entry.needs), state(entry))
        lines.append(f"| {' | '.join(cells)} |")
    for name, entry in entries:
        home = f" [Home page]({entry.home})." if entry.home else ""
        summary = "".join(f"\\{char}" if char in r"\`*_{}[]<>#|!" else char for char in entry.summary)
        lines += ["", f"## {name}", "", f"![{entry.status}](catalog/{name}.svg)"]
        lines += ["", f"{summary[0].upper()}{summary[1:]}.{home}"]
        if entry.status != "vanished":
            lines += ["", f"`pip install {name}`"]
        if checked := entry.checked:
            of = f" {checked.version} with ssrl-core {checked.core}" if checked.version else ""
            samples = f", {2 * checked.samples} samples of each level" if checked.samples else ""
            lines += ["", f"Checked on {checked.date}: {entry.status}{',' * bool(of)}{of}{samples}."]
            lines += ["", *(f"- `{fault.replace('`', ' ')}`" for fault in checked.faults)]
    return "\n".join(lines) + "\n"


def catalog_badge(entry: Entry) -> str:
    """The badge of an entry of the catalog."""
    return badge(entry.status, declared=entry.checked.declared if entry.checked else 0)


def options() -> str:
    """The page with the help of every command."""
    from ssrl_core.cli import app

    lines = ["# All options", "", "What `ssrl COMMAND --help` prints."]
    group: Any = typer.main.get_command(app())
    for name, command in sorted(group.commands.items()):
        lines += ["", f"## ssrl {name}", "", command.get_short_help_str(limit=200) or "", ""]
        lines += ["| parameter | |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            lines.append(f"| {names} | {text} |")
    return "\n".join(lines) + "\n"


def pictures(folder: Path) -> dict[str, Path]:
    """Task -> a picture with samples of every level, for all installed tasks of this repository."""
    from ssrl_core.cli.show import write_picture
    from ssrl_core.plugins import load_task

    found = {}
    for plugin in sorted((ROOT / "plugins").glob("ssrl-plugin-*")):
        task = plugin.name.removeprefix("ssrl-plugin-").replace("-", "_")
        found[task] = folder / f"{task}.jpg"
        if not found[task].exists():
            write_picture(load_task(task), found[task])
    return found
