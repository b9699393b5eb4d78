"""Prepare a release of the core and our plugins: everything but the upload.

    make release VERSION=0.2.0

In a clean git tree: finds the section of the changelog, sets the version and the ranges of our packages, builds wheels
and sdists into dist/, checks their metadata and files, installs all wheels together in a clean environment of each
version of Python, and tries the commands there. The workflow `release` does the same and uploads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
LINE = re.compile(r'^(__version__|version) = "(.+)"$', re.MULTILINE)
RANGE = re.compile(r"(\bssrl-(?:core|source-[a-z-]+|plugin-[a-z-]+)(?:\[[a-z,]+\])?)>=[\d.]+,<[\d.]+")
"""A requirement of one of our packages on another."""
INFO = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
"""The metadata of a wheel."""
MIX = "size: 112\nheldout: {samples: 2}\ntasks: {flipped_patch: , depth_ordering: }\n"
SNIPPET = """
from ssrl_core import Key, Recipe, load_mix, render, score
example = load_mix("mix.yaml")[0]
assert render(Recipe.from_json(example.recipe.to_json())) == example.sample
key = Key.of(example, format_weight=0.1)
right = score(key, "<think>I look.</think>\\\\boxed{%s}" % example.sample.truth)
assert right["score"] == 1.0, right
print("a sample is made, made again, and scored:", right["score"])
"""


class ReleaseError(Exception):
    """The release cannot go on; the message says why and what to do."""


def main() -> None:
    """Prepare the release of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--python", action="append", metavar="PYTHON", help="an interpreter to install for; repeatable")
    arguments = parser.parse_args()
    if git("status", "--porcelain"):
        raise ReleaseError("the git tree has changes: commit them first")
    pythons = arguments.python or [sys.executable]
    for python in pythons:  # before anything changes
        run([python, "--version"])
    begin = current_version(ROOT)
    check_order(begin, arguments.version)
    check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), arguments.version)
    changed = bump(ROOT, map(Path, git("ls-files").splitlines()), arguments.version)
    say(f"{begin} -> {arguments.version}: {len(changed)} files changed", *map(str, changed))

    files = build(ROOT / "dist")
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)])
    for file in files:
        check_files(file)
    say("sizes", *(f"{file.stat().st_size / 1000:8.1f} KB  {file.name}" for file in files))
    for python in pythons:
        try_installed(python, [file for file in files if file.suffix == ".whl"], arguments.version)
    next_steps = [
        f"git commit -am 'Release {arguments.version}'" if changed else "nothing to commit",
        f"git tag v{arguments.version} && git push origin HEAD v{arguments.version}",
        "publish the release on GitHub: the workflow `release` repeats all this and uploads",
        "or, without the workflow: python -m twine upload dist/*",
        "then start the workflow `catalog`, which checks the new versions",
    ]
    say("ready, nothing is uploaded. Next:", *next_steps)


# What is checked before


def current_version(root: Path) -> str:
    """The version of the core."""
    return LINE.search((root / "ssrl_core" / "__init__.py").read_text(encoding="utf-8"))[2]  # type: ignore[index]


def check_order(old: str, new: str) -> None:
    """Raise ReleaseError unless the new version is a final one, such as 0.2.0, and not below the old one."""
    if not VERSION.fullmatch(new):
        raise ReleaseError(f"{new!r} is no version of a release: write three numbers, such as 0.2.0")
    if _numbers(new) < _numbers(old):
        raise ReleaseError(f"{new} is below the version of the core, {old}")


def check_changelog(text: str, version: str) -> None:
    """Raise ReleaseError unless the changelog has a section for a version, the newest, with text in it."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    named = [section for section in sections if re.match(rf"{re.escape(version)}(\s|$)", section)]
    if not named or not named[0].partition("\n")[2].strip():
        raise ReleaseError(f"CHANGELOG.md has no section '## {version}' with text: rename '## Unreleased'")
    if sections[0] is not named[0]:
        raise ReleaseError(f"CHANGELOG.md has '## {sections[0].splitlines()[0]}' above the section of {version}")


# Versions


def bump(root: Path, tracked: Iterable[Path], version: str) -> list[Path]:
    """Set the version of the core and our plugins, and the ranges in which our packages need each other.

    Args:
        root: of the repository.
        tracked: paths of files below it.

    Returns:
        The files that changed.
    """
    changed = []
    for path in tracked:
        own = path == Path("ssrl_core/__init__.py") or path.match("plugins/*/pyproject.toml")
        ranged = path.name.startswith("pyproject.toml") or path == Path("CONTRIBUTING.md")
        if not own and not ranged:
            continue
        before = (root / path).read_text(encoding="utf-8")
        text = LINE.sub(rf'\1 = "{version}"', before) if own else before
        text = RANGE.sub(rf"\1{allowed(version)}", text) if ranged else text
        if text != before:
            (root / path).write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def allowed(version: str) -> str:
    """The range of releases that work with a version: ``>=0.2,<0.3`` for 0.2.x, ``>=1.4,<2`` for 1.4.x."""
    major, minor, _ = _numbers(version)
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# What is built


def build(folder: Path) -> list[Path]:
    """New sdists, and wheels made from them, of the core and all plugins."""
    shutil.rmtree(folder, ignore_errors=True)
    for project in [ROOT, *sorted((ROOT / "plugins").glob("ssrl-*"))]:
        run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(project)])
    return sorted(folder.iterdir())


def check_files(archive: Path) -> None:
    """Raise ReleaseError unless a wheel has the tracked files of its package and an sdist has only tracked files."""
    if archive.suffix == ".whl":
        found, package, version = _wheel(archive)
        info = {f"{package}-{version}.dist-info/{name}" for name in INFO}
        packages = [package, *["ssrl_verifiers"] * (package == "ssrl_core")]  # verifiers loads the core by this name
        wanted = set(git("ls-files", "--", *packages, cwd=_project(package)).splitlines()) | info
        missing, extra = wanted - found, found - wanted
    else:
        found, package = _sdist(archive)
        missing, extra = (
            set[str](),
            found - {"PKG-INFO", ".gitignore"} - set(git("ls-files", cwd=_project(package)).splitlines()),
        )
    for what, names in (("lacks", missing), ("has what git does not track or a release does not need:", extra)):
        if names:
            raise ReleaseError(f"{archive.name} {what} {', '.join(sorted(names)[:10])}")


def _wheel(archive: Path) -> tuple[set[str], str, str]:
    """The files of a wheel, its package, and its version."""
    package, version, *_ = archive.name.split("-")
    with zipfile.ZipFile(archive) as wheel:
        return set(wheel.namelist()), package, version


def _sdist(archive: Path) -> tuple[set[str], str]:
    """The files of an sdist, and its package."""
    with tarfile.open(archive) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}, archive.name.rpartition("-")[0]


def _project(package: str) -> Path:
    return ROOT if package == "ssrl_core" else ROOT / "plugins" / package.replace("_", "-")


# What is installed


def try_installed(python: str, wheels: Sequence[Path], version: str) -> None:
    """Install all wheels in a new environment, and run what a user runs first. Raises ReleaseError."""
    with TemporaryDirectory(prefix="ssrl-release-") as name:
        folder = Path(name)
        run([python, "-m", "venv", "--without-pip", str(folder / "env")])
        interpreter = str(folder / "env" / "bin" / "python")
        named = [f"{wheel}[testing]" if wheel.name.startswith("ssrl_core-") else str(wheel) for wheel in wheels]
        pip = [sys.executable, "-m", "pip", "--python", interpreter]
        run([*pip, "install", "--quiet", *named])
        run([*pip, "check"])
        (folder / "mix.yaml").write_text(MIX)

        def ssrl(*words: str) -> str:
            return run([interpreter, "-m", "ssrl_core", *words], cwd=folder)

        rows = json.loads(ssrl("list", "--json"))
        if faults := list(listed_otherwise(rows, version)):
            raise ReleaseError("; ".join(faults))
        ssrl("show", "shuffled_patches")
        ssrl("catalog")
        ssrl("mix", "mix.yaml")
        ssrl("preview", "mix.yaml", "-n", "4", "-o", "preview.html")
        said = run([interpreter, "-c", SNIPPET], cwd=folder).strip()
        checked = ssrl("check", "flipped_patch", "--level", "1", "-n", "30", "--quiet").strip().splitlines()[-1]
        release = run([interpreter, "--version"]).strip()
        say(f"installed together with {release}", f"{len(rows)} tasks of version {version}", said, checked)


def listed_otherwise(rows: Sequence[dict[str, str]], version: str) -> Iterator[str]:
    """How the tasks of ``ssrl list --json`` differ from those of our plugins in this version."""
    wanted: dict[str, tuple[str, str, str]] = {}
    for path in ROOT.glob("plugins/*/pyproject.toml"):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        wanted |= dict.fromkeys(project["entry-points"].get("ssrl", {}), (project["name"], version, "ok"))
    found = {row["task"]: (row["distribution"], row["distribution_version"], row["health"]) for row in rows}
    for task in sorted(wanted.keys() | found.keys()):
        if wanted.get(task) != found.get(task):
            yield f"{task} is {found.get(task)} instead of {wanted.get(task)}"


# Tools


def git(*words: str, cwd: Path = ROOT) -> str:
    """What a git command prints."""
    return run(["git", *words], cwd=cwd).strip()


def run(command: Sequence[str], *, cwd: Path = ROOT) -> str:
    """What a command prints. Raises ReleaseError with the end of its output if it fails."""
    environment = {key: value for key, value in os.environ.items() if not fnmatchcase(key, "PYTHON*")}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except OSError as err:
        raise ReleaseError(f"{' '.join(command)}\ncannot be run: {err}") from err
    if done.returncode:
        end = (done.stdout + done.stderr).strip()[-3000:]
        raise ReleaseError(f"{' '.join(command)}\nended with code {done.returncode}:\n{end}")
    return done.stdout


def say(headline: str, *lines: str) -> None:
    """Print a headline and lines below it."""
    print("\n  ".join((f"== {headline}", *lines)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as err:
        sys.exit(f"release: {err}")
