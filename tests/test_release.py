"""The command that prepares a release: versions, changelog, and the files of wheels and sdists."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import ssrl_core

ROOT = Path(__file__).parents[1]
TRACKED = [
    Path(name)
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
]
pytestmark = pytest.mark.skipif(not TRACKED, reason="this is no clone: git does not list the files")


@pytest.fixture(scope="module")
def program():
    """The module ``.github/release.py``."""
    spec = importlib.util.spec_from_file_location("release_program", ROOT / ".github" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of the files that may name a version."""
    for path in TRACKED:
        if path.suffix in (".py", ".toml", ".jinja", ".md", ".yaml") and path.parts[0] != "tests":
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def projects(root: Path) -> dict[str, dict]:
    """Distribution -> its metadata, of our plugins."""
    found = [tomllib.loads(path.read_text())["project"] for path in root.glob("plugins/*/pyproject.toml")]
    return {project["name"]: project for project in found}


def test_the_core_and_our_plugins_have_one_version():
    assert {project["version"] for project in projects(ROOT).values()} == {ssrl_core.__version__}


def test_a_new_version_is_set_everywhere_and_nothing_else_changes(program, clone):
    changed = program.bump(clone, [path for path in TRACKED if (clone / path).exists()], "3.4.5")
    assert program.current_version(clone) == "3.4.5"
    assert {project["version"] for project in projects(clone).values()} == {"3.4.5"}
    for project in projects(clone).values():
        assert [need for need in project["dependencies"] if "ssrl-" in need] == ["ssrl-core>=3.4,<4"]
    text = "\n".join((clone / path).read_text() for path in TRACKED if (clone / path).exists())
    ours = re.findall(r"\bssrl-[a-z-]+(?:\[[a-z,]+\])?>=([\d.]+,<[\d.]+)", text)
    assert len(ours) >= 12 and set(ours) == {"3.4,<4"}
    assert Path("ssrl_core/template/project/pyproject.toml.jinja") in changed
    assert Path("examples/ssrl-plugin-follow-route/pyproject.toml") in changed
    assert 'version = "0.1.0"' in (clone / "examples/ssrl-plugin-follow-route/pyproject.toml").read_text()
    for path in changed:
        before, after = ((root / path).read_text().splitlines() for root in (ROOT, clone))
        lines = [new for old, new in zip(before, after, strict=True) if old != new]
        assert all("3.4" in line for line in lines) and len(lines) <= 3, path


@pytest.mark.parametrize(
    ("version", "range"),
    [("0.2.0", ">=0.2,<0.3"), ("0.2.9", ">=0.2,<0.3"), ("1.4.2", ">=1.4,<2")],
)
def test_packages_accept_each_other_within_what_may_not_break(program, version, range):
    assert program.allowed(version) == range


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.2", "write three numbers"), ("v0.2.0", "no version"), ("0.2.0rc1", "no version"), ("0.0.9", "is below")],
)
def test_a_version_that_cannot_be_released_is_refused(program, version, message):
    with pytest.raises(program.ReleaseError, match=message):
        program.check_order("0.1.0", version)
    program.check_order("0.1.0", "0.1.0")  # the first release
    program.check_order("0.9.0", "0.10.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Changelog\n\n## Unreleased\n\n- x\n", "no section '## 0.2.0' with text: rename '## Unreleased'"),
        ("# Changelog\n\n## 0.2.0\n\n## 0.1.0\n\n- x\n", "no section '## 0.2.0' with text"),
        ("# Changelog\n\n## 0.2.01\n\n- x\n", "no section '## 0.2.0' with text"),
        ("# Changelog\n\n## Unreleased\n\n- y\n\n## 0.2.0\n\n- x\n", "'## Unreleased' above the section of 0.2.0"),
    ],
)
def test_a_changelog_without_the_version_is_refused(program, text, message):
    with pytest.raises(program.ReleaseError, match=message):
        program.check_changelog(text, "0.2.0")
    program.check_changelog("# Changelog\n\n## 0.2.0 (2026-12-01)\n\n- x\n\n## 0.1.0\n", "0.2.0")


@pytest.mark.parametrize("package", ["ssrl_core", "ssrl_source_rooms"])
def test_wheels_and_sdists_have_what_they_need_and_nothing_else(program, tmp_path, package):
    project = program._project(package)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, project]
    subprocess.run(command, check=True, capture_output=True)
    wheel, sdist = sorted(tmp_path.iterdir(), key=lambda path: path.suffix, reverse=True)
    program.check_files(wheel)
    program.check_files(sdist)
    assert (wheel.stat().st_size, sdist.stat().st_size) < (600_000, 600_000)

    with zipfile.ZipFile(wheel, "a") as opened:
        opened.writestr(f"{package}/notes.txt", "")
    with pytest.raises(program.ReleaseError, match=f"has what git does not track .* {package}/notes.txt"):
        program.check_files(wheel)
    with zipfile.ZipFile(wheel) as opened, zipfile.ZipFile(tmp_path / f"again-{wheel.name}", "w") as other:
        for name in opened.namelist():
            if not name.endswith(("py.typed", "notes.txt")):
                other.writestr(name, "")
    (tmp_path / f"again-{wheel.name}").rename(wheel)
    with pytest.raises(program.ReleaseError, match=f"lacks {package}/py.typed"):
        program.check_files(wheel)


def test_a_list_that_lacks_a_task_or_has_another_version_is_a_fault(program):
    row = {"distribution_version": "1.0", "health": "ok"}
    rows = [
        {"task": task, "distribution": name, **row}
        for name, project in projects(ROOT).items()
        for task in project["entry-points"].get("ssrl", {})
    ]
    assert list(program.listed_otherwise(rows, "1.0")) == []
    assert len(list(program.listed_otherwise(rows, "1.1"))) == len(rows)
    (fault,) = program.listed_otherwise(rows[1:], "1.0")
    assert fault.startswith(f"{rows[0]['task']} is None instead of ")
    (fault,) = program.listed_otherwise([{**rows[0], "health": "ok; old hook"}, *rows[1:]], "1.0")
    assert "old hook" in fault


def test_a_command_that_fails_is_shown_with_its_output(program):
    with pytest.raises(program.ReleaseError, match=r"(?s)ended with code 3:\n.*why"):
        program.run([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"])


def test_an_interpreter_that_is_missing_is_named_before_anything_changes(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["release.py", "9.9.9", "--python", "python9.99"])
    monkeypatch.setattr(program, "git", lambda *words: "")  # no changes
    monkeypatch.setattr(program, "check_changelog", lambda *_: pytest.fail("it went on"))
    with pytest.raises(program.ReleaseError, match=r"python9\.99 --version\ncannot be run"):
        program.main()
