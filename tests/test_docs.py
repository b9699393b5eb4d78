"""What README, CONTRIBUTING and the documentation show is what the code does."""

import inspect
import re
import runpy
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml
from PIL import Image

from ssrl_core import answers, hookspecs
from ssrl_core.cli import app
from ssrl_core.cli import new as scaffold
from ssrl_core.export.rows import leaves, schema
from ssrl_core.mix import load_mix
from ssrl_core.mix.file import read_mix
from ssrl_core.plugins.catalog import SHIPPED, read
from ssrl_core.reward import Key
from ssrl_core.testing import CRITERIA

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES |= {ROOT / "README.md": README, ROOT / "CONTRIBUTING.md": CONTRIBUTING}


class Block(NamedTuple):
    page: str
    language: str
    text: str


BLOCKS = [
    Block(str(path.relative_to(ROOT)), language, textwrap.dedent(text))
    for path, page in PAGES.items()
    for _, language, text in re.findall(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", page, re.MULTILINE)
]
"""Every fenced block of every page. Those of shell are the subject of test_docs_commands.py."""

TESTED = {}
"""Block -> name of the test that takes it."""

COMMANDS = "tests/test_docs_commands.py::test_the_commands_of_a_page_run_in_their_order"
CORNERS = "tests/test_benchmarks_docs.py::test_the_benchmark_of_ones_own_is_listed_checked_run_and_compared"
ELSEWHERE = {
    ("CONTRIBUTING.md", "yaml", "# sft.yaml"): COMMANDS,
    ("CONTRIBUTING.md", "yaml", "# grpo.yaml"): COMMANDS,
    ("docs/training.md", "yaml", "# grpo.yaml"): COMMANDS,
    ("docs/cluster.md", "yaml"): COMMANDS,
    ("docs/benchmarks.md", "python"): CORNERS,
    ("docs/benchmarks.md", "toml"): CORNERS,
    ("docs/trainers.md", "python"): "tests/trainers/test_trainers.py::"
    "test_the_code_for_trl_in_the_documentation_makes_a_trainer",
}
"""Page, language and beginning of a block -> the test in another file that takes it, or why none does."""


def the_block(page, language, beginning=""):
    """The only block of a page with this language and beginning."""
    (found,) = [b for b in BLOCKS if b[:2] == (page, language) and b.text.startswith(beginning)]
    return found


def shows(*wheres):
    """Decorates a test of blocks, each a page, a language and a beginning. It gets their texts as ``shown``."""

    def decorate(test):
        found = [the_block(*where) for where in wheres]
        TESTED.update(dict.fromkeys(found, test.__name__))
        return pytest.mark.parametrize("shown", [[block.text for block in found]], ids=[wheres[0][0]])(test)

    return decorate


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What ``ssrl new tilted-view`` writes."""
    pytest.importorskip("copier", reason="copier is not installed: pip install ssrl-core[new]")
    try:
        return scaffold.new_project("tilted-view", tmp_path_factory.mktemp("new"))
    finally:
        sys.modules.pop("ssrl_plugin_tilted_view", None)


@pytest.fixture
def installed_project(project, install, monkeypatch):
    monkeypatch.syspath_prepend(str(project))
    entries = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"]
    install("ssrl-plugin-tilted-view", entry_points=entries)


@shows(
    ("CONTRIBUTING.md", "python", "@hookimpl\n"),
    ("CONTRIBUTING.md", "python", "if TYPE_CHECKING"),
    ("CONTRIBUTING.md", "python", "class TaskOptions"),
    ("CONTRIBUTING.md", "python", "class TestConformance"),
    ("CONTRIBUTING.md", "python", "@hookimpl(wrapper=True)"),
    ("CONTRIBUTING.md", "toml"),
)
def test_the_code_in_contributing_is_what_ssrl_new_writes_or_what_a_test_runs(shown, project):
    files = [*project.rglob("*.py"), project / "pyproject.toml", ROOT / "tests/fixtures/ssrl_plugin_near_duplicates.py"]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for block in shown:
        assert block in code, block


def test_the_files_that_contributing_lists_are_those_of_a_new_project(project):
    (tree,) = re.findall(r"^    pyproject.toml.*?\n\n", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    listed = [name for line in tree.splitlines() for name in line[:42].split()]
    assert all((project / name).exists() for name in listed)
    written = {str(file.relative_to(project)) for file in project.rglob("*") if file.is_file()}
    hidden = {".gitignore", "ssrl_plugin_tilted_view/py.typed"}
    unlisted = {name for name in written - hidden if not name.startswith(tuple(listed)) and "__pycache__" not in name}
    assert not unlisted


@shows(("CONTRIBUTING.md", "python", "known_failures"))
def test_the_declared_failure_in_contributing_names_a_criterion(shown):
    ((key, reason),) = eval(f"dict({shown[0]})")["known_failures"].items()
    assert key.partition("@")[0] in {criterion.id for criterion in CRITERIA} and reason


def test_the_table_of_criteria_is_that_of_the_conformance_kit():
    rows = re.findall(r"^\| `([a-z ]+\.[a-z ]+)` \| (.*?) \| (.*?) \|$", CONTRIBUTING, re.MULTILINE)
    expected = [(criterion.id, criterion.expected.replace("<", "&lt;")) for criterion in CRITERIA]
    assert [row[:2] for row in rows] == expected
    assert all(remedy for _, _, remedy in rows)


def test_the_scorers_in_contributing_accept_what_it_says():
    rows = re.findall(r"^\| [a-z ,]+ \| `([^`]+)` \| `(match_\w+)` \| (.*) \|$", CONTRIBUTING, re.MULTILINE)
    assert len(rows) == 3
    for truth, scorer, others in rows:
        for answer in [truth, *re.findall("`([^`]+)`", others)]:
            assert getattr(answers, scorer)(answer, truth) == 1.0, (scorer, answer)


@shows(("CONTRIBUTING.md", "yaml", "# mix.yaml"))
def test_the_mix_in_contributing_makes_samples_of_all_its_tasks(shown, installed_project, write_mix):
    mix = load_mix(write_mix(shown[0]))
    examples = [mix[index] for index in range(8)]
    assert {example.recipe.task for example in examples} == {"shuffled_patches", "flipped_patch", "tilted_view"}
    for example in examples:
        task = mix.tasks[example.recipe.task]
        assert task.verify_answer(example.sample.truth, truth=example.sample.truth, params=example.sample.params) == 1.0


@shows(("CONTRIBUTING.md", "python", "import numpy"))
def test_the_python_code_in_contributing_makes_and_scores_a_sample_of_a_picture(
    shown, installed_project, photographs, tmp_path, monkeypatch, capsys
):
    shutil.copy(photographs / "china.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(shown[0], found)
    printed = capsys.readouterr().out
    assert "Which piece is not mirrored?" in printed and printed.endswith(f"{float(found['sample'].truth == 'B')}\n")
    assert found["sample"].images[0].size == Image.open("photo.jpg").size


def test_the_columns_in_the_documentation_of_an_export_are_those_of_its_rows():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    columns = [leaf.replace(".list.element", "") for leaf in leaves(schema(files=False))]
    assert re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE) == columns
    keys = re.search(r"the keys (.*?)\. It scores", text, re.DOTALL)[1]
    assert re.findall("`([a-z_]+)`", keys) == list(Key.__slots__)


@shows(("CONTRIBUTING.md", "yaml", "# ssrl_core/catalog.yaml"))
def test_the_entry_of_the_catalog_in_contributing_is_valid(shown, tmp_path):
    (tmp_path / "catalog.yaml").write_text(SHIPPED.read_text() + shown[0])
    assert read(tmp_path / "catalog.yaml").distributions["ssrl-plugin-tilted-view"].tasks == ("tilted_view",)


def test_every_command_that_is_shown_exists_with_its_options():
    commands = typer.main.get_command(app()).commands
    lines = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
    shown = [line.partition("#")[0].split()[1:] for line in lines if line.startswith("ssrl ")]
    assert len(shown) > 30
    for name, *words in shown:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, (name, words)


def test_contributing_states_the_version_of_the_hooks():
    stated = re.findall(r"\(`ssrl_core.API_VERSION`, now (\d+)\.(\d+)\)", CONTRIBUTING)
    assert [tuple(map(int, version)) for version in stated] == [hookspecs.API_VERSION]


def test_every_hook_is_described_with_its_real_arguments():
    hooks = {name: fn for name, fn in vars(hookspecs).items() if hasattr(fn, "ssrl_spec")}
    described = dict(re.findall(r"^- `(ssrl_\w+)\(([^)]*)\)`", CONTRIBUTING, re.MULTILINE))
    assert described == {name: ", ".join(inspect.signature(fn).parameters) for name, fn in hooks.items()}
    assert all(fn.__doc__ for fn in hooks.values())


def the_page(name):
    return PAGES[ROOT / "docs" / name]


@shows(
    ("docs/training.md", "yaml", "# mix.yaml"),
    ("docs/mixes.md", "yaml", "# harder.yaml"),
    ("docs/mixes.md", "yaml", "# rows.yaml"),
    ("docs/mixes.md", "yaml", "# staged.yaml"),
)
def test_the_mixes_in_the_documentation_are_valid(shown, write_mix):
    files = [write_mix(block, block.split()[1]) for block in shown]
    configs = {file.name: read_mix(file)[0] for file in files}
    assert set(configs["mix.yaml"].tasks) == {"shuffled_patches", "depth_ordering"}


@shows(("docs/trainers.md", "yaml"))
def test_the_configuration_of_easyr1_in_the_documentation_names_the_columns_of_its_export(shown):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    data = yaml.safe_load(shown[0])["data"]
    assert {data[f"{name}_key"] for name in ("prompt", "answer", "image")} <= set(
        schema(files=False, layout="easyr1").names
    )
    for layout, column in (("easyr1", 1), ("swift", 2)):
        table = re.findall(r"^\| (?:question|images|all|the right).*", the_page("trainers.md"), re.MULTILINE)
        named = [re.search("`([a-z]+)`", row.split("|")[column + 1])[1] for row in table]
        assert len(named) == 4 and set(named) <= set(schema(files=False, layout=layout).names)


@shows(("README.md", "yaml"), ("README.md", "python"), ("docs/python.md", "python"))
def test_the_python_code_in_the_documentation_runs(shown, write_mix, tmp_path, monkeypatch, capsys):
    mix, *codes = shown
    write_mix(mix)
    monkeypatch.chdir(tmp_path)
    for code in codes:
        exec(code, {})
        assert "'format': 1.0" in capsys.readouterr().out
        Path("puzzle.png").unlink()


@shows(("docs/export.md", "python"))
def test_the_python_code_in_the_documentation_of_an_export_scores_a_row(shown, write_mix, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from ssrl_core.export import export

    mix = load_mix(write_mix('source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {cropped_patch: }'))
    export(mix, tmp_path / "data", samples=1)
    (row,) = parquet.read_table(next((tmp_path / "data").glob("*.parquet"))).to_pylist()
    found = {"row": row}
    exec(shown[0].replace("\nscore(", "\nfound = score("), found)
    assert found["found"]["format"] == 1.0 and found["found"]["acc"] == (row["extra_info"]["truth"] == "A")


def test_the_example_in_python_runs(write_mix, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the 'train' extra is not installed")
    write_mix('source: "synthetic:?width=96&height=72"\nsize: 64\nheldout: {samples: 2}\ntasks: {flipped_patch: }')
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(ROOT / "examples" / "python" / "explore.py"))
    assert found["rewards"] == [1.0, 0.1, 0.0]
    assert found["batch"]["prompt"] == [found["mix"][k].prompt for k in range(4)]


def test_a_page_lists_every_command():
    listed = re.findall(r"^\| `ssrl ([a-z-]+)", the_page("commands.md"), re.MULTILINE)
    names = {command.name or command.callback.__name__.replace("_", "-") for command in app().registered_commands}
    assert set(listed) == names


def test_the_readme_is_a_landing_page():
    assert len(re.sub(r"```.*?```", "", README, flags=re.DOTALL).split()) <= 900
    assert (ROOT / "docs" / "figure.jpg").stat().st_size < 250_000


def test_the_figure_shows_every_task():
    shown = runpy.run_path(str(ROOT / "docs" / "figure.py"))
    ours = {path.name.removeprefix("ssrl-plugin-").replace("-", "_") for path in ROOT.glob("plugins/ssrl-plugin-*")}
    assert shown["PUZZLES"].keys() == ours and sum(shown["HEIGHTS"]) == len(ours)


def test_every_page_links_to_what_exists():
    generated = {"contributing.md", "options.md", "gallery.md", "index.md", "catalog.md"}  # see docs/site.py
    for path, text in PAGES.items():
        for target in re.findall(r"\]\((?!http|#)([^)#\s]+)[^)]*\)", text):
            assert (path.parent / target).exists() or target in generated, (path.name, target)


def test_every_block_is_taken_by_a_test_or_has_a_reason():
    """At the end of this file, when all tests have said what they take."""
    elsewhere = {the_block(*where): reason for where, reason in ELSEWHERE.items()}  # none is left over
    left = [block for block in BLOCKS if block.language != "sh" and block not in TESTED.keys() | elsewhere.keys()]
    assert not left, "decorate a test with shows(), or add to ELSEWHERE"
    assert not TESTED.keys() & elsewhere.keys()
    for reason in elsewhere.values():
        file, _, name = reason.partition("::")
        assert not name or f"def {name}(" in (ROOT / file).read_text(), reason
