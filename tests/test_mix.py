import hashlib
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssrl_core.errors import MixError, NotAllowed, SourceError, SSRLError, UnknownPlugin
from ssrl_core.mix import load_mix, single_task_mix
from ssrl_core.mix.file import read_mix
from ssrl_core.sample import render
from ssrl_core.seeding import generator
from ssrl_core.sources import open_source
from ssrl_core.types import Recipe

SMALL = "synthetic:?width=192&height=144"
FIVE = f"""
source: "{SMALL}"
size: 112
samples: 500
heldout: {{samples: 50}}
tasks:
  shuffled_patches: {{weight: 4}}
  flipped_patch: {{weight: 1}}
  cropped_patch: {{weight: 2}}
  depth_ordering: {{weight: 2}}
  relative_position: {{weight: 1, level: {{1: 3, 2: 1}}}}
"""


def digest(example):
    """Everything of an example that a model or a verifier sees."""
    pixels = [(image.size, image.tobytes()) for image in example.sample.images]
    return pixels, example.prompt, example.sample.truth, json.dumps(dict(example.sample.params), sort_keys=True)


def test_every_batch_has_the_stated_proportions(write_mix):
    mix = load_mix(write_mix(FIVE))
    tasks = [mix.slot(index).task for index in range(60)]
    for start in range(50):
        window = Counter(tasks[start : start + 10])
        assert abs(window["shuffled_patches"] - 4) <= 1
        assert abs(window["relative_position"] - 1) <= 1
    assert mix.shares["shuffled_patches"] == pytest.approx(0.4)


def test_fractional_weights_keep_their_proportions(write_mix):
    mix = load_mix(write_mix("tasks: {flipped_patch: {weight: 0.123}, cropped_patch: {weight: 0.877}}"))
    assert mix.shares["flipped_patch"] == pytest.approx(0.123, abs=1e-4)


def test_a_sample_of_a_task_does_not_change_when_another_task_joins(write_mix):
    alone = load_mix(write_mix("size: 112\ntasks: {flipped_patch: }", "a.yaml"))
    joined = load_mix(write_mix("size: 112\ntasks: {cropped_patch: {weight: 2}, flipped_patch: {weight: 1}}", "b.yaml"))
    found = [e for e in (joined[i] for i in range(9)) if e.recipe.task == "flipped_patch"]
    assert len(found) == 3
    assert [digest(e) for e in found] == [digest(alone[i]) for i in range(3)]


def test_each_task_has_its_levels_in_their_shares(write_mix):
    tasks = "flipped_patch: {level: {1: 3, paper: 1}}, cropped_patch: {level: 2}, depth_ordering: "
    mix = load_mix(write_mix(f"samples: 4000\ntasks: {{{tasks}}}"))
    found = Counter((slot.task, slot.level) for slot in map(mix.slot, range(len(mix))))
    assert found.keys() == {
        ("flipped_patch", "1"),
        ("flipped_patch", "paper"),
        ("cropped_patch", "2"),
        ("depth_ordering", "1"),
    }
    ones = found["flipped_patch", "1"]
    assert abs(ones - 1000) < 80  # of 1333, five standard deviations


def test_a_tasks_options_reach_it_and_its_recipe(write_mix):
    paper, plain = (
        load_mix(write_mix(f"size: 112\ntasks: {{flipped_patch: {{options: {options}}}}}", f"{name}.yaml"))[0]
        for name, options in (("paper", "{prompt: paper}"), ("plain", "{}"))
    )
    assert paper.recipe.options == {"prompt": "paper"} and plain.recipe.options == {}
    assert paper.prompt != plain.prompt
    assert paper.sample.truth == plain.sample.truth


def test_a_tasks_own_source_is_its_own_only(write_mix):
    own = "synthetic:?width=96&height=96&seed=4"
    mix = load_mix(write_mix(f"size: 96\ntasks: {{cropped_patch: , flipped_patch: {{source: '{own}'}}}}"))
    assert {e.recipe.task: e.recipe.source for e in (mix[0], mix[1])} == {
        "cropped_patch": "synthetic:",
        "flipped_patch": own,
    }


def test_a_tasks_own_seed_gives_what_the_seed_of_a_mix_gives_and_changes_no_other_task(write_mix):
    tasks = "tasks: {cropped_patch: , flipped_patch: {KEY}}\nsize: 112\nseed: "
    zero, own, five = (
        load_mix(write_mix(tasks.replace("KEY", key) + seed, f"{seed}{key[:4]}.yaml"))
        for key, seed in (("", "0"), ("seed: 5", "0"), ("", "5"))
    )
    assert [mix.slot(1).task for mix in (zero, own, five)] == ["flipped_patch"] * 3
    assert digest(own[1]) == digest(five[1]) != digest(zero[1])
    assert digest(own[0]) == digest(zero[0]) != digest(five[0])


def test_a_recipe_rebuilds_its_sample_in_another_process(write_mix, tmp_path):
    mix = load_mix(write_mix(FIVE))
    examples = [mix[i] for i in range(10)]
    assert {e.recipe.task for e in examples} == set(mix.tasks)
    (tmp_path / "recipes").write_text("\n".join(e.recipe.to_json() for e in examples))
    code = """
import hashlib, sys
from ssrl_core.plugins import load_task
from ssrl_core.sample import render
from ssrl_core.types import Recipe
for line in reversed(open(sys.argv[1]).read().splitlines()):
    recipe = Recipe.from_json(line)
    sample = render(recipe)
    pixels = b"".join(image.tobytes() for image in sample.images)
    print(hashlib.sha256(pixels).hexdigest(), sample.truth, repr(load_task(recipe.task).format_prompt(sample)))
"""
    expected = [
        f"{hashlib.sha256(b''.join(i.tobytes() for i in e.sample.images)).hexdigest()} {e.sample.truth} "
        f"{mix.tasks[e.recipe.task].format_prompt(e.sample)!r}"
        for e in reversed(examples)
    ]
    for hash_seed in ("0", "12345"):
        out = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "recipes")],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
        )
        assert out.stdout.splitlines() == expected


def test_workers_and_order_do_not_change_the_samples(write_mix):
    torch = pytest.importorskip("torch", reason="the 'train' extra is not installed")
    from torch.utils.data import DataLoader

    mix = load_mix(write_mix(FIVE))
    expected = {i: digest(mix[i]) for i in range(10)}
    for workers in (0, 2):
        loader = DataLoader(
            mix, batch_size=None, sampler=list(reversed(range(10))), num_workers=workers, collate_fn=digest
        )
        assert dict(zip(reversed(range(10)), loader, strict=True)) == expected
    assert torch.__version__


@pytest.mark.parametrize("kind", ["of a file", "of one task"])
def test_a_mix_can_be_unpickled_in_another_process(write_mix, tmp_path, kind):
    if kind == "of a file":
        mix = load_mix(write_mix(FIVE), split="heldout")
    else:
        mix = single_task_mix("shuffled_patches", source=SMALL, split="validation", size=112, samples=9)
    payload = pickle.dumps(mix)
    assert len(payload) < 10_000  # neither tasks nor sources
    (tmp_path / "mix").write_bytes(payload)
    code = """
import hashlib, pickle, sys
mix = pickle.load(open(sys.argv[1], "rb"))
example = mix[7]
pixels = b"".join(image.tobytes() for image in example.sample.images)
print(mix.split, len(mix), example.recipe.to_json(), hashlib.sha256(pixels).hexdigest())
"""
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "mix")], capture_output=True, text=True)
    pixels = hashlib.sha256(b"".join(image.tobytes() for image in mix[7].sample.images)).hexdigest()
    assert out.stdout == f"{mix.split} {len(mix)} {mix[7].recipe.to_json()} {pixels}\n", out.stderr


def test_held_out_images_are_those_that_training_never_draws(write_mix, install_toy, pictures):
    install_toy()
    split = "samples: 100\nheldout: {samples: 100, fraction: 0.3}"
    path = write_mix(f"source: 'folder:{pictures}'\nsize: 96\n{split}\ntasks: {{toy: }}")
    drawn = {}
    for split in ("train", "validation", "heldout"):
        mix = load_mix(path, split=split)
        drawn[split] = [(mix[index].recipe.image_id, mix[index].sample.truth) for index in range(100)]
    train, validation, heldout = ({image for image, _ in samples} for samples in drawn.values())
    assert heldout == validation and not train & heldout and len(train | heldout) == 12
    assert drawn["heldout"] != drawn["validation"]


def test_recipes_survive_json(write_mix):
    recipe = load_mix(write_mix(FIVE))[3].recipe
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_recipe_of_another_task_version_is_refused(write_mix):
    recipe = load_mix(write_mix(FIVE))[0].recipe
    old = json.loads(recipe.to_json()) | {"task_version": "0"}
    with pytest.raises(SSRLError, match="made by version '0'"):
        render(Recipe(**old))


def test_a_recipe_from_before_images_were_read_as_now_is_refused(write_mix):
    old = json.loads(load_mix(write_mix(FIVE))[0].recipe.to_json())
    del old["reading"]
    with pytest.raises(SSRLError, match=r"reads images in another way \(version 1, this one has \d+\): install"):
        render(Recipe.from_json(json.dumps(old)))


def test_generators_of_neighbouring_samples_are_unrelated():
    draws = {
        tuple(generator(seed, stream=stream, index=index, attempt=attempt).integers(2**62, size=2))
        for seed in range(5)
        for stream in ("a/train/task", "a/heldout/task", "b/train/task")
        for index in range(20)
        for attempt in range(3)
    }
    assert len(draws) == 5 * 3 * 20 * 3


def test_generation_leaves_the_global_generators_alone(write_mix):
    import random

    mix = load_mix(write_mix(FIVE))
    before = random.getstate(), np.random.get_state()[1].tolist()
    for index in range(10):
        mix[index]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("tasks: {flipped_patch: {wieght: 1}}", ["tasks.flipped_patch.wieght", "Did you mean 'weight'?"]),
        ("tasks: {flipped_patch: {weight: -1}}", ["tasks.flipped_patch.weight", "-1", "greater than or equal to 0"]),
        ("tasks: {flipped_patch: {weight: 0}}", ["tasks", "greater than 0"]),
        ("tasks: {flipped_patch: {weight: 0}, cropped_patch: }", ["tasks.flipped_patch.weight", "remove the task"]),
        ("tasks: {flipped_patch: {weight: .nan}}", ["tasks.flipped_patch.weight", "nan"]),
        ("tasks: {flipped_patch: {level: 9}}", ["tasks.flipped_patch.level", "'9'", "paper"]),
        ("tasks: {flipped_patch: {level: {1: 1, 9: 1}}}", ["tasks.flipped_patch.level", "'9'"]),
        ("tasks: {flipped_patch: {level: {1: -1}}}", ["tasks.flipped_patch.level", "-1"]),
        ("tasks: {shuffled_patches: {options: {partial: true}}}", ["tasks.shuffled_patches.options", "partial"]),
        ("tasks: {}", ["tasks", "at least 1"]),
        ("taks: {flipped_patch: }", ["taks", "Did you mean 'tasks'?"]),
        ("tasks: {flipped_patch: {level: {1: 1, 01: 3}}}", ["1 stands twice"]),
        ("tasks: {flipped_patch: {level: ''}}", ["''", "not a level"]),
        ("tasks: {flipped_patch: {weight: 1.0e+300}}", ["tasks.flipped_patch.weight"]),
        ("instruction: look at <image>\ntasks: {flipped_patch: }", ["instruction", "'<image>' marks an image"]),
        ("size: big\ntasks: {flipped_patch: }", ["size", "'big'"]),
        ("tasks: {flipped_patch: , flipped_patch: }", ["'flipped_patch' stands twice"]),
        ("tasks: [flipped_patch]", ["tasks"]),
        ("- a\n- b", ["mapping"]),
        ("tasks: {flipped_patch: ", ["not valid YAML"]),
        ("", ["mapping"]),
    ],
)
def test_a_mistake_in_a_mix_is_explained_by_path_value_and_reason(write_mix, text, complaints):
    path = write_mix(text)
    with pytest.raises(MixError) as error:
        load_mix(path)
    for complaint in (path.name, *complaints):
        assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tasks: {str: {weight: -1}}", "tasks.str.weight: -1: Input should be greater than or equal to 0"),
        ("tasks: {int: {wieght: 1}}", "tasks.int.wieght: there is no such key. Did you mean 'weight'? Known: weight"),
        ("tasks: {dict: 3}", "tasks.dict: 3: Input should be a valid dictionary"),
        ("tasks: {function-x: {level: [1]}}", "tasks.function-x.level: [1]: Input should be a valid string"),
        ("tasks: {toy: {level: {str: -1}}}", "tasks.toy.level.str: -1: Input should be greater than 0"),
        ("tasks: {toy: {level: {1: -1}}}", "tasks.toy.level.1: -1: Input should be greater than 0"),
        ("tasks: {toy: {level: 1.5}}", "tasks.toy.level: 1.5: Input should be a valid string"),
        ("tasks: {toy: }\nwrappers: [1]", "wrappers[0]: 1: Input should be a valid string"),
        (
            "tasks: {toy: }\nschedule: [{}, {tasks: {int: {level: {2: 0}}}}]",
            "schedule[1].tasks.int.level.2: 0: Input should be greater than 0",
        ),
        ("tasks: {toy: }\nschedule: [{dict: 3}]", "schedule[0].dict: there is no such key. Known: until, until_sample"),
        ("tasks: {toy: }\nheldout: {int: 4}", "heldout.int: there is no such key. Known: samples, fraction"),
        ("size: 64", "tasks: missing"),
    ],
)
def test_a_message_names_each_key_of_the_file_and_no_branch_of_a_union(write_mix, text, complaint):
    path = write_mix(text)
    with pytest.raises(MixError) as error:
        read_mix(path)
    lines = str(error.value).splitlines()
    assert any(line.startswith(f"{path}: {complaint}") for line in lines), lines


def test_a_message_names_the_keys_of_a_tasks_options(write_mix, install_toy):
    options = """
from ssrl_core import Options

class Own(Options):
    str: int | list[int] = 1
    sides: dict[__builtins__["str"], int] = {}
"""
    install_toy(
        ("@hookimpl\ndef ssrl_task", f"{options}\n@hookimpl\ndef ssrl_task"), ("levels=", "options=Own, levels=")
    )
    path = write_mix("tasks: {toy: {options: {str: [1, x], sides: {int: y}, sizes: 3}}}")
    with pytest.raises(MixError) as error:
        load_mix(path)
    where = f"{path}: tasks.toy.options"
    for complaint in (".str[1]: 'x': ", ".sides.int: 'y': ", ".sizes: there is no such key. Did you mean 'sides'?"):
        assert f"{where}{complaint}" in str(error.value)


def test_an_absent_mix_file_is_explained(tmp_path):
    with pytest.raises(MixError, match="cannot read the mix"):
        load_mix(tmp_path / "none.yaml")


def test_a_task_that_is_not_installed_is_explained(write_mix):
    with pytest.raises(UnknownPlugin) as error:
        load_mix(write_mix("tasks: {fliped_patch: }"))
    for part in ("'fliped_patch'", "Did you mean 'flipped_patch'?", "installed:"):
        assert part in str(error.value)
    assert "pip install" not in str(error.value)  # of a distribution that a slip would name


def test_a_depth_task_on_a_colour_source_is_refused_before_anything_runs(write_mix, probe):
    with pytest.raises(MixError, match=r"tasks\.depth_ordering: .*'blank:' has not what this task needs: depth\. "):
        load_mix(write_mix('source: "blank:"\ntasks: {probe: , depth_ordering: }'))


def test_a_colour_task_does_not_care_for_depth(write_mix, tmp_path):
    rooms = open_source("synthetic:?width=160&height=120")
    for number in range(3):
        room = rooms.load(str(number))
        Image.fromarray(room.rgb).save(tmp_path / f"{number}_rgb.png")
        np.save(tmp_path / f"{number}_depth.npy", room.depth)
    tasks = "tasks: {flipped_patch: , depth_ordering: }"
    options = "color=*_rgb.png&depth=*_depth.npy"
    mix = load_mix(write_mix(f'source: "rgbd:{tmp_path}?{options}"\nsize: 112\n{tasks}'))
    example = next(example for example in mix if example.recipe.task == "flipped_patch")
    for number in range(3):
        (tmp_path / f"{number}_depth.npy").write_bytes(b"no array")
    assert render(example.recipe) == example.sample
    with pytest.raises(SourceError, match="unreadable depth: 64"):
        next(example for example in mix if example.recipe.task == "depth_ordering")


def test_a_source_of_which_no_image_can_be_used_ends_with_counted_reasons(write_mix, probe):
    mix = load_mix(write_mix('source: "blank:"\nsize: 112\ntasks: {shuffled_patches: }'))
    with pytest.raises(SourceError, match=r"64 images in a row .* \(.*: 64\)"):
        mix[0]
    assert sum(mix.rejections["shuffled_patches"].values()) == 64


def test_an_unknown_scheme_is_explained(write_mix):
    with pytest.raises(UnknownPlugin, match="image source 'foldr'"):
        load_mix(write_mix("source: foldr:/tmp\ntasks: {flipped_patch: }"))
    with pytest.raises(SourceError, match="expected SCHEME"):
        load_mix(write_mix("source: /tmp\ntasks: {flipped_patch: }"))


def test_a_relative_source_starts_at_the_mix(write_mix, tmp_path):
    from PIL import Image

    (tmp_path / "my photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    for name in "abc":
        Image.fromarray(noise).resize((320, 240)).save(tmp_path / "my photos" / f"{name}.png")
    mix = load_mix(write_mix("source: 'folder:my photos'\nsize: 112\ntasks: {flipped_patch: }"))
    assert mix[0].recipe.source == f"folder:{tmp_path / 'my photos'}"


def test_the_truth_does_not_depend_on_how_many_images_were_rejected(write_mix, probe):
    """What a task draws first is the same for every image that it is offered."""
    recipe = load_mix(write_mix('source: "blank:"\ntasks: {probe: }'))[0].recipe
    truths = {
        render(Recipe(**json.loads(recipe.to_json()) | {"attempt": n, "image_id": str(n)})).truth for n in range(9)
    }
    assert len(truths) == 1


def test_the_papers_mix_has_the_papers_numbers_of_samples():
    mix = load_mix(Path(__file__).parents[1] / "examples" / "paper" / "mix.yaml")
    assert {task: round(share * len(mix)) for task, share in mix.shares.items()} == {
        "shuffled_patches": 16_028,
        "flipped_patch": 4_005,
        "cropped_patch": 20_200,
        "depth_ordering": 20_620,
        "relative_position": 20_200,
    }


WRAPPER = """
from dataclasses import replace
from ssrl_core import hookimpl

@hookimpl(wrapper=True)
def ssrl_format_prompt(sample):
    prompt = yield
    return prompt + " (wrapped)"
"""


def test_the_wrappers_of_a_mix_wrap_its_tasks_and_stand_in_its_recipes(write_mix, install):
    install("ssrl-wrapper-words", entry_points={"ssrl.wrappers": {"words": "ssrl_wrapper_words"}}, code=WRAPPER)
    text = "size: 112\ntasks: {flipped_patch: , cropped_patch: }"
    plain, wrapped = load_mix(write_mix(text, "a.yaml")), load_mix(write_mix(f"{text}\nwrappers: [words]", "b.yaml"))
    for index in range(2):
        assert "(wrapped)" in wrapped[index].prompt and "(wrapped)" not in plain[index].prompt
        assert wrapped[index].recipe.wrappers == ("words",)
        assert wrapped[index].sample.truth == plain[index].sample.truth


def test_a_mix_that_allows_some_distributions_imports_nothing_of_others(write_mix, install):
    code = "raise SystemExit('was imported')"
    install("ssrl-plugin-stranger", entry_points={"ssrl": {"stranger": "ssrl_plugin_stranger"}}, code=code)
    path = write_mix(
        "allowed_distributions: [ssrl-plugin-f*, ssrl-source-rooms]\nsize: 112\ntasks: {flipped_patch: , stranger: }"
    )
    with pytest.raises(NotAllowed) as error:
        load_mix(path)
    for part in ("mix.yaml: allowed_distributions", "ssrl-plugin-stranger", "ssrl-plugin-f*"):
        assert part in str(error.value)
    assert load_mix(
        write_mix("allowed_distributions: [ssrl-plugin-f*, ssrl-source-rooms]\nsize: 112\ntasks: {flipped_patch: }")
    )[0]


def test_a_mix_must_allow_the_distribution_of_its_source(write_mix):
    with pytest.raises(NotAllowed, match="ssrl-source-rooms"):
        load_mix(write_mix("allowed_distributions: [ssrl-plugin-f*]\ntasks: {flipped_patch: }"))
