import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


def ssrl(*arguments, cwd=None, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-m", "ssrl_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "120"} | environment,
        cwd=cwd,
    )


def test_list_names_every_task_with_its_distribution():
    rows = json.loads(ssrl("list", "--json").stdout)
    assert {row["task"]: row["distribution"] for row in rows}.items() >= {
        ("shuffled_patches", "ssrl-plugin-shuffled-patches"),
        ("flipped_patch", "ssrl-plugin-flipped-patch"),
        ("cropped_patch", "ssrl-plugin-cropped-patch"),
        ("depth_ordering", "ssrl-plugin-depth-ordering"),
        ("relative_position", "ssrl-plugin-relative-position"),
    }
    assert "shuffled_patches" in ssrl("list").stdout


def test_show_gives_levels_options_a_prompt_and_its_answer():
    facts = json.loads(ssrl("show", "shuffled_patches", "--json").stdout)
    assert {"1", "2", "paper"} <= set(facts["levels"])
    assert facts["options"]["partial_credit"]["default"] is False
    assert facts["prompt"].count("<image>") == 1
    text = ssrl("show", "shuffled_patches").stdout
    assert facts["truth"] in text and "partial_credit" in text


def test_show_of_an_unknown_task_is_an_explanation_not_a_traceback():
    result = ssrl("show", "shuffled_patch")
    assert result.returncode == 2
    assert "Did you mean 'shuffled_patches'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_preview_writes_one_page_that_holds_everything(write_mix, tmp_path):
    mix = write_mix("size: 112\ntasks: {flipped_patch: , cropped_patch: }")
    page = tmp_path / "page.html"
    result = ssrl("preview", mix, "-n", 6, "-o", page)
    assert result.returncode == 0, result.stderr
    html = page.read_text()
    assert html.count("<article") == 6
    assert html.count("data:image/jpeg;base64,") == 3 * 1 + 3 * 5
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("image_id") == 6


def test_a_mistake_in_a_mix_ends_with_a_message_and_code_2(write_mix):
    result = ssrl("preview", write_mix("tasks: {flipped_patch: {level: 17}}"))
    assert result.returncode == 2
    assert "'17' is not a level of" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("recipe", "overrides", "complaints"),
    [
        ("trainer: {}", [], ["the key 'mix' is missing"]),
        ("mix: mix.yaml\nbase: recipe.yaml", [], ["cannot be its own base"]),
        ("mix: [mix.yaml]", [], ["is not the path of a file"]),
        ("mix: mix.yaml\nmix: other.yaml", [], ["'mix' stands twice"]),
        ("mix: none.yaml", [], ["cannot read the mix"]),
        (
            "mix: mix.yaml\ntrainer: {total_trainin_steps: 3}",
            [],
            ["total_trainin_steps", "Did you mean 'total_training_steps'"],
        ),
        ("mix: mix.yaml\nactor_rollout_ref: {rollout: {m: 4}}", [], ["actor_rollout_ref.rollout.m"]),
        ("mix: mix.yaml\ntrainer:", [], ["trainer: a section of settings, not None"]),
        ("mix: mix.yaml\ntrainer: {total_epochs: {a: 1}}", [], ["trainer.total_epochs: takes a value such as 30"]),
        ("mix: mix.yaml", ["trainer.no_such_setting=1"], ["no_such_setting"]),
        (
            "mix: mix.yaml\nactor_rollout_ref: {rollout: {n: 5, log_prob_micro_batch_size_per_gpu: 7}}",
            ["data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
            ["log_prob_micro_batch_size_per_gpu = 7 does not divide a worker's rollouts: 40"],
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_explained(write_mix, tmp_path, recipe, overrides, complaints):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    write_mix("size: 112\nheldout: {samples: 2}\ntasks: {flipped_patch: }")
    path = write_mix(recipe, "recipe.yaml")
    result = ssrl("train", path, *overrides, "--dry-run")
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stderr
    for complaint in complaints:
        assert complaint in result.stderr


MISTAKES = [
    ("mix MIX --model ./nowhere", r"--model \./nowhere: "),
    ("compare nowhere elsewhere", "nowhere holds no evaluation"),
    ("check flipped_patch --option foo=1", r"option foo: there is no such key\. Known: prompt, partial_credit"),
    ("check flipped_patch --only leak", "Did you mean 'leaks'"),
    ("check flipped_patch --source folder:/nowhere", "there is no folder '/nowhere'"),
    ("show flipped_patch --picture /nowhere/a.jpg", "/nowhere/a.jpg: No such file or directory"),
    ("show flipped_patch --picture a.xyz", r"a\.xyz: unknown file extension"),
    ("preview flipped_patch -n 1 -o .", "Is a directory"),
    ("tiny-model MIX .", r"\. exists, and is left as it is"),
    ("export MIX -o out --address a:1", "add --ray"),
    ("export MIX -o . -n 2", r"is not empty \(mix.yaml\), and is no export"),
    ("eval MIX --model MODEL --engine vlm", "either transformers or vllm"),
    ("eval MIX --model MODEL -o .", "is not empty .*, and is no evaluation"),
]


@pytest.mark.parametrize(("words", "complaint"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_on_the_command_line_is_explained_and_leaves_nothing(write_mix, tmp_path, words, complaint):
    model = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"
    mix = write_mix('source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {flipped_patch: }')
    names = {"MIX": mix, "MODEL": model}
    result = ssrl(*(names.get(word, word) for word in words.split()), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert re.search(complaint, " ".join(result.stderr.split())) and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [mix.name]


def test_a_dry_run_prints_configuration_and_command_and_writes_nothing(write_mix, tmp_path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    import yaml

    mix = write_mix("size: 112\nheldout: {samples: 2}\ntasks: {flipped_patch: }")
    write_mix("trainer: {total_training_steps: 7}", "base.yaml")
    base = tmp_path / "base.yaml"
    base.write_text("mix: mix.yaml\ntrainer: {total_training_steps: 7, save_freq: 3}")
    recipe = write_mix("base: base.yaml\ntrainer: {save_freq: 5}", "recipe.yaml")
    result = ssrl("train", recipe, f"trainer.default_local_dir={tmp_path}/run", "+data.note=here", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "-m verl.trainer.main_ppo" in result.stdout
    assert not (tmp_path / "run").exists()
    config = yaml.safe_load(result.stdout)
    assert config["data"]["train_files"] == str(mix)
    assert (config["trainer"]["total_training_steps"], config["trainer"]["save_freq"]) == (7, 5)
    assert config["data"]["note"] == "here"
