"""The command line: what each command prints, and how a user's mistake is explained."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from ssrl_core import cli
from ssrl_core.cli.what import open_mix
from ssrl_core.drawing import draw_text

MODEL = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"
SMALL = "size: 112\nheldout: {samples: 2}\ntasks: {flipped_patch: }"


@pytest.fixture
def ssrl(monkeypatch, capsys):
    """A function that runs ``ssrl`` in this process. Returns ``code``, ``out`` and ``err``."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("SSRL_DEBUG", "0")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ssrl", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return SimpleNamespace(code=end.value.code, **capsys.readouterr()._asdict())

    return run


def python(*words, **environment):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def test_list_imports_no_other_command_and_no_heavy_library():
    code = (
        "import sys; from ssrl_core.cli import main; sys.argv = ['ssrl', 'list', '--json']\n"
        "try: main()\n"
        "except SystemExit: sys.stderr.write(' '.join(sys.modules))"
    )
    done = python("-c", code)
    rows = json.loads(done.stdout)
    assert {row["task"]: row["distribution"] for row in rows}.items() >= {
        ("shuffled_patches", "ssrl-plugin-shuffled-patches"),
        ("relative_position", "ssrl-plugin-relative-position"),
    }
    modules = set(done.stderr.split())
    assert {name for name in modules if name.startswith("ssrl_core.cli.")} == {
        "ssrl_core.cli.list",
        "ssrl_core.cli.terminal",
    }
    assert not modules & {"torch", "transformers", "verl", "ray", "rich", "ssrl_core.mix", "ssrl_core.sample"}


def test_show_gives_levels_options_a_prompt_and_its_answer(ssrl):
    facts = json.loads(ssrl("show", "shuffled_patches", "--json").out)
    assert {"1", "2", "paper"} <= set(facts["levels"])
    assert facts["options"]["partial_credit"]["default"] is False
    assert facts["prompt"].count("<image>") == 1
    text = ssrl("show", "shuffled_patches").out
    assert facts["truth"] in text and "partial_credit" in text


def test_preview_writes_one_page_that_holds_everything(ssrl, write_mix, tmp_path):
    mix = write_mix("size: 112\ntasks: {flipped_patch: , cropped_patch: }")
    page = tmp_path / "page.html"
    done = ssrl("preview", mix, "-n", 6, "-o", page)
    assert done.code == 0 and done.out.startswith("6 samples -> ")
    html = page.read_text()
    assert html.count("<article") == 6
    assert html.count('src="data:image/png;base64,') == html.count("<img") == 3 * 1 + 3 * 5
    assert "http" not in html and "<image>" not in html and "&lt;image&gt;" not in html
    assert html.count("image_id") == 6


@pytest.mark.parametrize("command", [("preview",), ("export", "-o", "out")])
@pytest.mark.parametrize(("key", "value"), [("source", "synthetic:"), ("size", "128"), ("seed", "0")])
def test_what_a_mix_file_says_is_refused_as_an_option_beside_it(ssrl, write_mix, command, key, value):
    done = ssrl(*command, write_mix("tasks: {flipped_patch: }"), f"--{key}", value)
    assert done.code == 2 and f"--{key} {value}: no effect on a mix file. Write the {key} into" in done.err


def test_a_task_is_exported_without_a_mix_file(ssrl, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    settings = ("flipped_patch", "-n", 5, "--size", 128, "--seed", 4, "--source", "synthetic:?width=192&height=144")
    assert ssrl("export", *settings, "--split", "heldout", "-o", tmp_path / "here").code == 0
    two_workers = ssrl("export", *settings, "--split", "heldout", "-o", tmp_path / "there", "--workers", 2)
    assert two_workers.code == 0, two_workers.err
    (shard,) = (tmp_path / "here").glob("heldout-*.parquet")
    assert shard.read_bytes() == (tmp_path / "there" / shard.name).read_bytes()
    recipes = [json.loads(row["extra_info"]["recipe"]) for row in pq.read_table(shard).to_pylist()]
    assert {(recipe["size"], recipe["seed"], recipe["split"]) for recipe in recipes} == {(128, 4, "heldout")}
    assert len(recipes) == 5 and len({recipe["level"] for recipe in recipes}) > 1


def test_the_picture_of_a_task_has_the_names_that_the_prompt_gives_and_the_size_that_is_asked(
    ssrl, tmp_path, monkeypatch
):
    texts = []

    def draw(image, text, **place):
        texts.append(text)
        draw_text(image, text, **place)

    monkeypatch.setattr("ssrl_core.cli.show.draw_text", draw)
    widths = []
    for size in (112, 224):
        assert ssrl("show", "cropped_patch", "--picture", tmp_path / "a.png", "--size", size).code == 0
        with Image.open(tmp_path / "a.png") as picture:
            widths.append(picture.width)
    assert texts[1:6] == ["Picture", "A", "B", "C", "D"] and texts[0].startswith("level 1: ")
    assert len(texts) == 2 * 6 * 2 * 4 and widths[1] > widths[0] > 112
    texts.clear()
    assert ssrl("show", "flipped_patch", "--picture", tmp_path / "a.png").code == 0
    assert not any("image" in text for text in texts)


def test_a_folder_with_the_name_of_a_task_does_not_hide_the_task(tmp_path, monkeypatch):
    (tmp_path / "flipped_patch").mkdir()
    monkeypatch.chdir(tmp_path)
    assert list(open_mix("flipped_patch", source=None, split="train", samples=3).tasks) == ["flipped_patch"]


def test_mix_prints_text_or_json_and_ends_with_code_2_if_a_task_has_an_error(ssrl, write_mix):
    mix = write_mix("size: 112\ntasks: {flipped_patch: , no_such_task: }")
    text, facts = ssrl("mix", mix, "-n", 1), ssrl("mix", mix, "-n", 1, "--json")
    assert text.code == facts.code == 2
    assert "flipped_patch@1" in text.out and "ERROR in no_such_task" in text.out
    assert "no_such_task" in json.loads(facts.out)["tasks"]["no_such_task"]["error"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "complaints"),
    [
        ("trainer: {}", [], ["the key 'mix' is missing"]),
        ("mix: mix.yaml\ninclude: recipe.yaml", [], ["a recipe cannot include itself"]),
        ("mix: [mix.yaml]", [], ["is not the path of a file"]),
        ("mix: mix.yaml\nmix: other.yaml", [], ["'mix' stands twice"]),
        ("mix: none.yaml", [], ["cannot read the mix"]),
        (
            "mix: mix.yaml\ntrainer: {total_trainin_steps: 3}",
            [],
            ["total_trainin_steps", "Did you mean 'total_training_steps'"],
        ),
        ("mix: mix.yaml\nactor_rollout_ref: {rollout: {m: 4}}", [], ["actor_rollout_ref.rollout.m"]),
        ("mix: mix.yaml\ntrainer:", [], ["trainer: must be a section of settings, not None"]),
        ("mix: mix.yaml\ntrainer: {total_epochs: {a: 1}}", [], ["trainer.total_epochs: must be a value such as 30"]),
        ("mix: mix.yaml", ["trainer.no_such_setting=1"], ["no_such_setting"]),
        (
            "mix: mix.yaml\nactor_rollout_ref: {rollout: {n: 5, log_prob_micro_batch_size_per_gpu: 7}}",
            ["data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
            ["log_prob_micro_batch_size_per_gpu = 7 does not divide a worker's rollouts: 40"],
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_explained(ssrl, write_mix, recipe, overrides, complaints):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    write_mix(SMALL)
    done = ssrl("train", write_mix(recipe, "recipe.yaml"), *overrides, "--dry-run")
    assert done.code == 2, done.out
    for complaint in complaints:
        assert complaint in done.err


MISTAKES = [
    ("show shuffled_patch", r"Did you mean 'shuffled_patches'\?"),
    ("preview WRONG", "'17' is not a level of"),
    ("mix MIX --model ./nowhere", r"--model \./nowhere: "),
    ("compare nowhere elsewhere", "nowhere holds no evaluation"),
    ("check flipped_patch --option foo=1", r"option foo: there is no such key\. Known: prompt, partial_credit"),
    ("check flipped_patch --only leak", "Did you mean 'leaks'"),
    ("check flipped_patch --source folder:/nowhere", "there is no folder '/nowhere'"),
    ("show flipped_patch --picture a.xyz", r"a\.xyz: unknown file extension"),
    ("tiny-model MIX .", r"\. exists and is not changed"),
    ("export MIX -o out --address a:1", "add --ray"),
    ("export MIX -o out --split test", "'test' is not one of 'train', 'validation', 'heldout'"),
    ("export MIX -o . -n 2", r"is not empty \(mix.yaml.*\) and holds no export"),
    ("eval MIX --model MODEL --engine vlm", "'vlm' is not one of 'transformers', 'vllm'"),
    ("eval MIX --model MODEL --name tiny", "which model?"),
    ("eval MIX --endpoint http://localhost:9/v1 --name tiny --body [", r"--body '\[': not a JSON object"),
    ("eval MIX --model MODEL -o .", "is not empty .* and holds no evaluation"),
]


@pytest.mark.parametrize(("words", "complaint"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_on_the_command_line_is_explained_and_leaves_nothing(
    ssrl, write_mix, tmp_path, monkeypatch, words, complaint
):
    files = {
        "MIX": write_mix('source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {flipped_patch: }'),
        "WRONG": write_mix("tasks: {flipped_patch: {level: 17}}", "wrong.yaml"),
    }
    monkeypatch.chdir(tmp_path)
    done = ssrl(*((files | {"MODEL": MODEL}).get(word, word) for word in words.split()))
    assert done.code == 2, done.err
    assert re.search(complaint, " ".join(done.err.split()))
    assert {path.name for path in tmp_path.iterdir()} == {"mix.yaml", "wrong.yaml"}


# Tracebacks

PICTURE = ("show", "flipped_patch", "--picture", "/nowhere/a.jpg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (PICTURE, r"ssrl: /nowhere/a.jpg: No such file or directory \(ssrl --debug \.\.\. shows the traceback\)\n"),
        (("show", "no_such_task"), r"ssrl: no installed plugin provides the task 'no_such_task'"),
    ],
)
def test_an_error_is_a_message_and_with_debug_it_is_raised(ssrl, monkeypatch, words, message):
    done = ssrl(*words)
    assert done.code == 2 and re.match(message, done.err) and "Traceback" not in done.err
    for before, variable in ((["--debug"], "0"), ([], "1")):
        monkeypatch.setenv("SSRL_DEBUG", variable)
        monkeypatch.setattr(sys, "argv", ["ssrl", *before, *words])
        with pytest.raises((OSError, cli.SSRLError)):
            cli.main()


def test_debug_shows_where_a_file_was_opened():
    done = python("-m", "ssrl_core", "--debug", *PICTURE)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "write_picture" in done.stderr


@pytest.mark.parametrize(("module", "raised"), [("torch", False), ("some_other_module", True)])
def test_a_missing_library_of_the_train_extra_is_a_message_and_any_other_one_a_traceback(
    ssrl, monkeypatch, module, raised
):
    def command():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("ssrl_core.cli.score.command", command)
    if raised:
        monkeypatch.setattr(sys, "argv", ["ssrl", "score"])
        with pytest.raises(ModuleNotFoundError):
            cli.main()
    else:
        done = ssrl("score")
        assert done.code == 2
        assert done.err == "ssrl: this needs torch, which is not installed: pip install 'ssrl-core[train]'\n"


# Training


def test_a_dry_run_prints_configuration_and_command_and_writes_nothing(ssrl, write_mix, tmp_path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    mix = write_mix(SMALL)
    write_mix("mix: mix.yaml\ntrainer: {total_training_steps: 7, save_freq: 3}", "base.yaml")
    recipe = write_mix("include: base.yaml\ntrainer: {save_freq: 5}", "recipe.yaml")
    dry_run = ("train", recipe, f"trainer.default_local_dir={tmp_path}/run", "+data.note=here", "--dry-run")
    brief = ssrl(*dry_run)
    assert brief.code == 0, brief.err
    assert "7 steps of" in brief.out and "every 5 steps" in brief.out
    done = ssrl(*dry_run, "-v")
    assert done.code == 0, done.err
    assert "-m verl.trainer.main_ppo" in done.out
    assert not (tmp_path / "run").exists()
    config = yaml.safe_load(done.out)
    assert config["data"]["train_files"] == str(mix)
    assert (config["trainer"]["total_training_steps"], config["trainer"]["save_freq"]) == (7, 5)
    assert config["data"]["note"] == "here"


def test_a_mix_with_errors_and_a_failed_check_end_with_a_code(ssrl, install_toy, tmp_path):
    (tmp_path / "mix.yaml").write_text("tasks: {flipped_patch: {level: 17}}")
    done = ssrl("mix", tmp_path / "mix.yaml")
    assert done.code == 2 and "ERROR in flipped_patch" in done.out
    install_toy(("0.5", "1.5"))
    done = ssrl("check", "toy", "--only", "contract.levels", "-n", "2", "--size", "64")
    assert done.code == 1 and "FAILED" in done.out
