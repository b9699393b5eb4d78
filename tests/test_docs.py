"""What README and CONTRIBUTING show is what the code does."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from ssrl_core import hookspecs
from ssrl_core.cli import app
from ssrl_core.mix import MixConfig, load_mix

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_task_in_contributing_works_as_it_stands(install, write_mix):
    (metadata,) = [tomllib.loads(block) for block in blocks(CONTRIBUTING, "toml")]
    (code,) = blocks(CONTRIBUTING, "python")
    install(metadata["project"]["name"], code=code, entry_points=metadata["project"]["entry-points"])
    mix = load_mix(write_mix("size: 112\nheldout: {samples: 5}\ntasks: {brighter_half: {level: {1: 1, 2: 1}}}"))
    examples = [mix[index] for index in range(20)]
    assert {example.sample.truth for example in examples} == {"left", "right"}
    task = mix.tasks["brighter_half"]
    for example in examples:
        truth = example.sample.truth
        assert task.verify_answer(truth.upper(), truth=truth, params={}) == 1.0
        assert task.verify_answer("left or right", truth=truth, params={}) == 0.0


def test_every_hook_is_described_with_its_real_arguments():
    hooks = {name: fn for name, fn in vars(hookspecs).items() if hasattr(fn, "ssrl_spec")}
    described = dict(re.findall(r"^- `(ssrl_\w+)\(([^)]*)\)`", CONTRIBUTING, re.MULTILINE))
    assert described == {name: ", ".join(inspect.signature(fn).parameters) for name, fn in hooks.items()}
    assert all(fn.__doc__ for fn in hooks.values())


def test_the_mix_in_the_readme_is_valid():
    (mix,) = [yaml.safe_load(block) for block in blocks(README, "yaml") if "\ntasks:" in block]
    config = MixConfig(**mix)
    assert set(config.tasks) == {"shuffled_patches", "depth_ordering"}


def test_the_recipe_in_the_readme_is_valid(write_mix, tmp_path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    from ssrl_core.verl.launch import prepare

    (recipe,) = [block for block in blocks(README, "yaml") if block.startswith("# grpo.yaml")]
    write_mix("size: 112\nheldout: {samples: 2}\ntasks: {flipped_patch: }")
    path = write_mix(recipe, "grpo.yaml")
    launch = prepare("grpo", path, [f"trainer.default_local_dir={tmp_path}/run"], device="cuda")
    assert launch.steps == 360


def test_the_readme_lists_every_command():
    listed = set(re.findall(r"^\| `ssrl ([a-z-]+)", README, re.MULTILINE))
    names = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert listed == names


def test_the_readme_links_to_what_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README + CONTRIBUTING):
        assert (ROOT / target).exists(), target
