"""``ssrl new`` writes a distribution that works, and that copier can update later."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import ssrl_core
from ssrl_core.cli import new as scaffold
from ssrl_core.cli.new import load_project, new_project, task_name
from ssrl_core.errors import SSRLError
from ssrl_core.plugins import load_task
from ssrl_core.testing.project import faults_of

pytest.importorskip("copier", reason="copier is not installed: pip install ssrl-core[new]")

ROOT = Path(__file__).parents[1]
GIT = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
FILES = {
    ".copier-answers.yml",
    ".github/workflows/publish.yml",
    ".github/workflows/tests.yml",
    ".gitignore",
    "LICENSE",
    "README.md",
    "gallery.jpg",
    "pyproject.toml",
    "ssrl_plugin_tilted_view/__init__.py",
    "ssrl_plugin_tilted_view/py.typed",
    "tests/test_tilted_view.py",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    try:
        return new_project("tilted-view", tmp_path_factory.mktemp("new"), author="Ada Lovelace")
    finally:
        sys.modules.pop("ssrl_plugin_tilted_view", None)


@pytest.fixture
def installed_project(project, install, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.syspath_prepend(str(project / "tests"))
    install("ssrl-plugin-tilted-view", entry_points=metadata(project)["entry-points"])
    yield project
    sys.modules.pop("test_tilted_view", None)


def metadata(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def text_of(project: Path) -> str:
    files = (project / name for name in FILES - {"gallery.jpg"})
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def run(*command: object, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


# Names


@pytest.mark.parametrize("name", ["tilted-view", "tilted_view", "ssrl-plugin-tilted-view", "ssrl_plugin_tilted_view"])
def test_every_form_of_a_name_is_the_same_task(name):
    assert task_name(name) == "tilted-view"


@pytest.mark.parametrize(
    "name", ["", "Tilted", "3d-view", "tilted--view", "-view", "a view", "../view", "é", "ssrl-plugin-"]
)
def test_an_invalid_name_is_refused_with_the_rule(name, tmp_path):
    with pytest.raises(SSRLError, match="small letters, digits and single hyphens"):
        new_project(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_name_of_an_installed_task_is_refused(install_toy, tmp_path):
    install_toy(name="tilted_view", distribution="ssrl-plugin-other")
    with pytest.raises(SSRLError, match="'tilted_view' exists: ssrl-plugin-other is installed"):
        new_project("tilted-view", tmp_path)


def test_an_existing_folder_is_not_changed(tmp_path):
    (tmp_path / "ssrl-plugin-mine").mkdir()
    (tmp_path / "ssrl-plugin-mine/work.py").write_text("mine")
    with pytest.raises(SSRLError, match="is not changed"):
        new_project("mine", tmp_path)
    assert [file.name for file in (tmp_path / "ssrl-plugin-mine").iterdir()] == ["work.py"]


def test_without_copier_the_command_that_installs_it_is_shown(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "copier", None)
    with pytest.raises(SSRLError, match=re.escape('pip install "ssrl-core[new]"')):
        new_project("mine", tmp_path)


@pytest.mark.parametrize("author", ['"', "{{ 1 }}", "a\nb", "\\"])
def test_characters_that_would_break_the_files_are_refused(author, tmp_path):
    with pytest.raises(SSRLError, match="author"):
        new_project("mine", tmp_path, author=author)


def test_a_license_without_a_text_is_refused(tmp_path):
    with pytest.raises(SSRLError, match="choose one of Apache"):
        new_project("mine", tmp_path, license="GPL")


# What is written


def test_a_project_is_complete_and_has_no_path_of_this_machine(project):
    assert {str(file.relative_to(project)) for file in project.rglob("*") if file.is_file()} - FILES <= {
        str(file.relative_to(project)) for file in project.rglob("__pycache__/*")
    }
    assert all((project / name).is_file() for name in FILES)
    text = text_of(project)
    assert not re.search(r"\{[{%]|[%}]\}", text.replace("${{ matrix.python }}", ""))
    for path in (str(project.parent), str(ROOT)):
        assert path not in text


def test_its_metadata_have_its_name_and_require_this_core(project):
    facts = metadata(project)
    assert facts["name"] == "ssrl-plugin-tilted-view"
    assert facts["entry-points"] == {"ssrl": {"tilted_view": "ssrl_plugin_tilted_view"}}
    assert facts["authors"] == [{"name": "Ada Lovelace"}]
    major, minor = map(int, ssrl_core.__version__.split(".")[:2])
    assert facts["dependencies"] == [f"ssrl-core>={major}.{minor},<{major}.{minor + 1}"]


@pytest.mark.parametrize(
    ("license", "words"), [("Apache-2.0", "Apache License"), ("MIT", "MIT License"), ("BSD-3-Clause", "BSD 3-Clause")]
)
def test_the_license_is_the_chosen_one_in_text_and_metadata(license, words, tmp_path, monkeypatch):
    monkeypatch.setattr(scaffold, "write_picture", lambda task, path: path.touch())
    project = new_project("tilted-view", tmp_path, license=license, repository="https://example.org/x/")
    sys.modules.pop("ssrl_plugin_tilted_view")
    text = (project / "LICENSE").read_text(encoding="utf-8")
    assert words in text[:200]
    assert license == "Apache-2.0" or "The authors of ssrl-plugin-tilted-view" in text
    assert metadata(project)["license"] == license
    assert metadata(project)["urls"] == {"Repository": "https://example.org/x"}
    assert "https://example.org/x/raw/HEAD/gallery.jpg" in (project / "README.md").read_text()


def test_the_workflow_publishes_as_a_trusted_publisher_without_a_token(project):
    text = (project / ".github/workflows/publish.yml").read_text()
    publish = yaml.safe_load(text)["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert publish["steps"][-1] == {"uses": "pypa/gh-action-pypi-publish@release/v1"}
    assert "secrets" not in text
    tests = yaml.safe_load((project / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]
    assert tests["strategy"]["matrix"]["python"] == ["3.11", "3.12"]


def test_the_picture_shows_samples_of_every_level(project):
    from PIL import Image

    with Image.open(project / "gallery.jpg") as picture:
        width, height = picture.size
        assert len(picture.convert("RGB").getcolors(width * height) or ()) > 1000
    assert height > 4 * 150 and width > 224


def test_its_texts_pass_until_the_task_is_another_one(installed_project):
    task = load_task("tilted_view")
    assert list(faults_of(task, lambda: "Three of the pieces are mirrored.")) == []
    (fault,) = faults_of(task, lambda: "How far was the view tilted?")
    assert "`ssrl new` still describes its own task" in fault


def test_the_readme_has_the_prompt_and_the_levels_of_the_task(project, install):
    task = load_project(project)
    prompt = sys.modules.pop("ssrl_plugin_tilted_view").WORDINGS["plain"]
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert "".join(f"    {line}\n" for line in prompt.splitlines()) in readme
    assert re.findall(r"^\| `(\w+)` \| from", readme, re.MULTILINE) == list(task.info.levels)


# That it works


def test_the_task_passes_the_conformance_kit_in_small(installed_project):
    from test_tilted_view import TestConformance

    from ssrl_core.testing import check_task

    families = ["contract", "determinism.repeated", "determinism.inputs", "verifier", "hacking", "ambiguity"]
    families += ["health.rejections", "health.hard images"]
    report = check_task(
        "tilted_view", samples=24, size=128, solve=TestConformance().solve, only=families, levels=["2"], workers=0
    )
    assert [str(check) for check in report.checks if check.status != "passed"] == []


@pytest.mark.parametrize(("kind", "word"), [("views", "turned left or right"), ("clip", "taken earlier")])
def test_a_task_on_several_images_works_and_is_described(kind, word, tmp_path, install, monkeypatch):
    from ssrl_core.testing import check_task

    project = new_project("my-task", tmp_path, kind=kind)
    sys.modules.pop("ssrl_plugin_my_task", None)
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert word in " ".join(readme.split()) and word in metadata(project)["description"]
    assert not re.search(r"\{[{%]|[%}]\}", readme) and (project / "gallery.jpg").is_file()
    for folder in (project, project / "tests"):
        monkeypatch.syspath_prepend(str(folder))
    install("ssrl-plugin-my-task", entry_points=metadata(project)["entry-points"])
    from test_my_task import TestConformance

    try:
        task = load_task("my_task")
        assert (task.info.takes, task.api_version) == (kind, "1.1")
        prompt = sys.modules["ssrl_plugin_my_task"].WORDINGS["plain"]
        assert "".join(f"    {line}\n" for line in prompt.splitlines()) in readme
        assert list(faults_of(task, lambda: prompt)) == []
        only = [
            "contract.images",
            "determinism.repeated",
            "determinism.inputs",
            "ambiguity.oracle",
            "health.hard images",
        ]
        report = check_task(
            "my_task", samples=12, size=112, solve=TestConformance().solve, only=only, levels=["1"], workers=0
        )
        assert [str(check) for check in report.checks if check.status != "passed"] == []
    finally:
        sys.modules.pop("test_my_task", None)


def test_its_own_tests_inherit_every_criterion(installed_project):
    from test_tilted_view import TestConformance

    from ssrl_core.testing import PretextTaskTests

    assert issubclass(TestConformance, PretextTaskTests)
    assert TestConformance.solve is not PretextTaskTests.solve
    assert TestConformance.task == "tilted_view"


def test_it_is_listed_and_works_in_a_mix(installed_project, write_mix):
    from ssrl_core.cli.list import list_tasks
    from ssrl_core.mix import load_mix

    assert "tilted_view" in [row["task"] for row in list_tasks()]
    mix = load_mix(write_mix("size: 128\nheldout: {samples: 4}\ntasks: {tilted_view: {level: {1: 1, 2: 1}}}"))
    assert {mix[index].recipe.level for index in range(6)} == {"1", "2"}


def test_ruff_finds_nothing_in_it(project):
    pytest.importorskip("ruff", reason="ruff is not installed")
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=project)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", cwd=project)


# Updates


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_copier_update_merges_a_later_template_into_the_authors_work(tmp_path, monkeypatch):
    template = tmp_path / "template"
    shutil.copytree(ROOT / "ssrl_core/template", template / "ssrl_core/template")
    shutil.copy(ROOT / "copier.yml", template)
    commit(template, "first", new=True)
    run("git", "tag", f"v{ssrl_core.__version__}", cwd=template)

    monkeypatch.setattr(scaffold, "_repository", lambda: f"git+{template.as_uri()}")
    monkeypatch.setattr(scaffold, "write_picture", lambda task, path: path.touch())
    project = new_project("tilted-view", tmp_path)
    sys.modules.pop("ssrl_plugin_tilted_view")
    ours = project / "ssrl_plugin_tilted_view/__init__.py"
    ours.write_text(ours.read_text().replace("SMALLEST = 12", "SMALLEST = 20"))
    commit(project, "mine", new=True)

    workflow = template / "ssrl_core/template/project/.github/workflows/tests.yml"
    workflow.write_text(workflow.read_text().replace('"3.12"', '"3.12", "3.13"'))
    commit(template, "second")
    run("git", "tag", "v99.0.0", cwd=template)
    run(sys.executable, "-m", "copier", "update", "--defaults", "--quiet", cwd=project, **GIT)

    changed = set(run("git", "diff", "--name-only", cwd=project).split())
    assert changed == {".github/workflows/tests.yml", ".copier-answers.yml"}
    assert '"3.13"' in (project / ".github/workflows/tests.yml").read_text()
    assert "SMALLEST = 20" in ours.read_text()


def commit(folder: Path, message: str, *, new: bool = False) -> None:
    if new:
        run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", message, cwd=folder, **GIT)


# Publishing


@pytest.mark.slow
def test_the_wheel_installs_into_a_clean_environment_and_passes_its_own_tests(project, tmp_path):
    pytest.importorskip("build", reason="build is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    wheels = tmp_path / "wheels"
    for folder in (ROOT, ROOT / "plugins/ssrl-source-rooms", project):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ".", cwd=folder)
    core, plugin, rooms = sorted(wheels.glob("*.whl"))
    shipped = {name.removeprefix("ssrl_core/template/") for name in zipfile.ZipFile(core).namelist()}
    assert {str(f.relative_to(scaffold.TEMPLATE)) for f in scaffold.TEMPLATE.rglob("*") if f.is_file()} <= shipped

    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean/bin/python"
    run(python, "-m", "pip", "install", "--quiet", f"{core}[testing]", rooms, plugin, cwd=tmp_path)
    rows = json.loads(run(python, "-m", "ssrl_core", "list", "--json", cwd=tmp_path))
    (row,) = [row for row in rows if row["task"] == "tilted_view"]
    assert row["distribution"] == "ssrl-plugin-tilted-view"
    shown = json.loads(run(python, "-m", "ssrl_core", "show", "tilted_view", "--json", cwd=tmp_path))
    assert shown["truth"] in "ABCD"
    shutil.copytree(project / "tests", tmp_path / "tests")
    assert " passed" in run(python, "-m", "pytest", "-q", "tests", cwd=tmp_path)


@pytest.mark.slow
def test_mypy_finds_nothing_in_it_and_every_mistake_in_a_hook(project, tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    copy = shutil.copytree(project, tmp_path / "copy")
    mypy = [sys.executable, "-m", "mypy", "--no-incremental"]
    run(*mypy, cwd=copy, MYPYPATH=str(ROOT))
    module = copy / "ssrl_plugin_tilted_view/__init__.py"
    module.write_text(module.read_text().replace("ssrl_verify_answer(answer: str", "ssrl_verify_answer(reply: str"))
    done = subprocess.run(mypy, cwd=copy, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, check=False)
    assert b'variable has type "TaskPlugin"' in done.stdout
