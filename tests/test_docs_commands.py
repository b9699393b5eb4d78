"""Every line of shell in README, CONTRIBUTING and docs/ runs here, or has a reason why it does not.

A page is read from the top, in a folder of its own: its files are written and its commands run in this process, on
small images and with a model that answers A to everything.
"""

import glob
import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.cli.quiz import QuizServer
from ssrl_core.reward import Key, score
from ssrl_core.sources import open_source

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}

NOT_RUN = {
    "pip install": "a network; that what it names exists is checked here, `make release` installs the wheels",
    "make demo": "minutes of training; tests/test_demo.py tests its report",
    "make test": "this is it",
    "make bench": "minutes of undisturbed measuring",
    "pytest": "minutes; "
    "tests/test_scaffold.py::test_the_wheel_installs_into_a_clean_environment_and_passes_its_own_tests",
    "python -m venv": "a network; see pytest",
    "python -m build": "see pytest",
    "/tmp/clean/bin/ssrl list": "see pytest",
    "python -m ssrl_core.verl.upstream": "tests/test_upstream.py::test_the_installed_version_has_every_name",
    "ssrl benchmark": "tests/test_benchmarks_docs.py::test_every_command_of_the_page_runs",
    "ssrl compare runs/benchmark": "tests/test_benchmarks_docs.py::test_every_command_of_the_page_runs",
    "ssrl export mix.yaml -o data -n 20000 --ray": "a Ray cluster; "
    "tests/test_export_cluster.py::test_a_node_that_is_killed_changes_no_byte",
    "vllm serve": "vLLM; tests/vllm/test_vllm_benchmarks.py::test_a_video_is_sent_as_one_part",
    "vf-eval": "verifiers; tests/trainers/test_trainers.py::test_ten_rollouts_of_verifiers_are_rewarded_as_ours",
    "sbatch": "SLURM",
    "kubectl": "Kubernetes",
    "ray ": "several machines",
    "nohup ssrl train": "several machines; the page has the same command as a dry run",
}
"""Beginning of a line -> what it needs, or the test that runs it."""

SMALLER = {r"-n \d+": "-n 4", r"--quiz \d+": "--quiz 2", "--workers 8": "--workers 2"}
"""Patterns of options -> what replaces them: less work."""
ADDED = {
    "preview": "-n 4",
    "mix": "-n 4",
    "eval": "-n 4",
    "check": "-n 4 --level 1 --only contract --no-cache",
    "train": "--dry-run",
    "sft": "--dry-run",
}
"""Command -> options that are added unless the line has one of them: less work, and all of a run but the training."""


def shell_lines(text):
    """The lines of all blocks of shell, without comments."""
    found = [line.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in found) if line]


def reason_of(line):
    """The beginning in NOT_RUN that fits, or None."""
    return max((beginning for beginning in NOT_RUN if line.startswith(beginning)), key=len, default=None)


LINES = {page: shell_lines(text) for page, text in PAGES.items()}


class Reader:
    """Someone who follows a page in a folder."""

    def __init__(self, page, belongings, monkeypatch, install):
        self.text, self.belongings, self.monkeypatch, self.install = PAGES[page], belongings, monkeypatch, install
        self.done = set()
        self.write_files()

    def write_files(self):
        """Write the files of the page, and those that it takes for granted, into the working folder."""
        shutil.copytree(self.belongings, ".", dirs_exist_ok=True)
        recipe = re.search(r"```yaml\n(# grpo\.yaml\n.*?)```", PAGES["docs/training.md"], re.DOTALL)[1]
        files = {"mix.yaml": SMALL, "grpo.yaml": recipe}
        for block in re.findall(r"```yaml\n(.*?)```", self.text, re.DOTALL):
            if named := re.match(r"# (\S+\.yaml)\n", block):
                files[named[1]] = block
        for name, content in files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content, encoding="utf-8")

    def follow(self, line):
        """Do what a line says, or what is left of it if it has a reason not to run."""
        if line.startswith("pip install"):
            self.pip(line)
        elif line.startswith("make "):
            assert f"\n{line.split()[1]}: " in (ROOT / "Makefile").read_text()
        elif line.startswith("cd "):
            self.monkeypatch.chdir(line.split()[1])
            self.write_files()
        elif reason_of(line) is None:
            self.ssrl(line)

    def pip(self, line):
        """What is named is ours and has the extras, or is known; a new project is installed as it is."""
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in shlex.split(line)[2:]:
            if word == "-e" or word == "build":
                continue
            if word.startswith(("ssrl-core", "ssrl-source", "ssrl-plugin")) and not Path(word).exists():
                name, _, chosen = word.removesuffix("]").partition("[")
                assert name == "ssrl-core" or (ROOT / "plugins" / name).is_dir(), word
                assert set(filter(None, chosen.split(","))) <= extras.keys(), word
            elif "-e" in line:
                entries = tomllib.loads(Path(word, "pyproject.toml").read_text())["project"]["entry-points"]
                self.monkeypatch.syspath_prepend(str(Path(word).resolve()))
                self.install("ssrl-plugin-tilted-view", entry_points=entries)
            else:
                assert (ROOT / word / "pyproject.toml").exists(), word

    def ssrl(self, line):
        """Run ``ssrl`` in this process."""
        for pattern, smaller in SMALLER.items():
            line = re.sub(pattern, smaller, line)
        program, command, *words = [
            found for word in shlex.split(line) for found in (sorted(glob.glob(word)) if "*" in word else [word])
        ]
        assert program == "ssrl", f"{line}: run it here, or say in NOT_RUN what it needs"
        added = shlex.split(ADDED.get(command, ""))
        if not {"--quiz", added[0] if added else None} & set(words):
            words += added
        if command in ("train", "sft") and "--device" not in words:
            words += ["--device", "cuda" if "n_gpus_per_node" in Path(words[0]).read_text() else "cpu"]
        if (command, *words) in self.done:
            return
        self.done.add((command, *words))
        if command == "compare":  # of two models; here one, twice
            for folder in words:
                shutil.copytree(next(Path("runs/eval").iterdir()), folder)
        done = CliRunner().invoke(app(), [command, *words])
        assert done.exit_code == 0, (line, done.output, done.exception)
        if command == "new":  # it leaves the module imported
            sys.modules.pop("ssrl_plugin_tilted_view", None)
        if command == "sft":  # what the cold start would leave
            shutil.copytree("model", "runs/sft/global_step_16/huggingface")


RIGHT = r"<think>I look.</think>\boxed{4213}"
SMALL = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 8}
tasks: {shuffled_patches: , depth_ordering: }
"""


@pytest.fixture(scope="module")
def belongings(photographs, tmp_path_factory):
    """A folder with what the pages take for granted: ``photos``, ``frames`` with depth, and saved ``rollouts``."""
    folder = tmp_path_factory.mktemp("belongings")
    for name in ("photos", "frames", "rollouts"):
        (folder / name).mkdir()
    for path in photographs.iterdir():
        with Image.open(path) as photo:
            for number in range(8):
                left, top = np.random.default_rng(number).integers(0, np.array(photo.size) // 4)
                part = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
                part.save(folder / "photos" / f"{path.stem}{number}.jpg")
    rooms = open_source("synthetic:?width=192&height=144")
    for number in range(30):
        room = rooms.load(rooms.image_id(number))
        Image.fromarray(room.rgb).save(folder / "frames" / f"{number}.color.png")
        millimetres = np.nan_to_num(room.depth * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "frames" / f"{number}.depth.png")
    key, completion = Key("shuffled_patches", "4213", level="1", format_weight=0.1), RIGHT
    dump = {"output": completion, "gts": key.to_json(), "score": score(key, completion)["score"]}
    (folder / "rollouts" / "1.jsonl").write_text(json.dumps(dump) + "\n")
    return folder


@pytest.fixture
def reader(belongings, tmp_path, monkeypatch, install, stand_in):
    """A function that gives a reader of a page, in a folder of its own. Quizzes end at once, as by Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path / "cache"))

    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(QuizServer, "serve_forever", interrupted)
    return lambda page: Reader(page, belongings, monkeypatch, install)


@pytest.mark.parametrize("page", [page for page, lines in LINES.items() if lines])
def test_the_commands_of_a_page_run_in_their_order(page, reader):
    if any(line.startswith(("ssrl train", "ssrl sft", "ssrl tiny-model")) for line in LINES[page]):
        pytest.importorskip("verl", reason="the 'train' extra is not installed")
    follower = reader(page)
    for line in LINES[page]:
        follower.follow(line)


def test_a_reason_not_to_run_a_line_is_that_of_a_line_and_names_a_test_that_exists():
    used = {reason_of(line) for lines in LINES.values() for line in lines}
    assert NOT_RUN.keys() <= used
    for reason in NOT_RUN.values():
        if named := re.search(r"(tests/\S+\.py)(?:::(\w+))?", reason):
            assert f"def {named[2] or ''}" in (ROOT / named[1]).read_text(encoding="utf-8"), reason


def test_a_line_that_neither_runs_nor_has_a_reason_is_a_failure(reader):
    with pytest.raises(AssertionError, match="say in NOT_RUN what it needs"):
        reader("README.md").follow("curl https://example.org/install.sh")
    with pytest.raises(AssertionError, match="No such option"):
        reader("README.md").follow("ssrl mix mix.yaml --colour")
    with pytest.raises(AssertionError, match="ssrl-plugin-telescope"):
        reader("README.md").follow("pip install ssrl-plugin-telescope")
