"""What ``ssrl mix`` says, against what the mix then does."""

import json
from collections import Counter

import pytest
from PIL import Image

from ssrl_core.cli.mix import as_text, describe_mix, errors
from ssrl_core.models.tokens import estimate_tokens, image_tokens
from ssrl_core.errors import MixError
from ssrl_core.mix import load_mix

MIX = """
source: "synthetic:?width=128&height=96"
size: 112
samples: 90
tasks:
  flipped_patch: {weight: 2, level: {1: 3, 2: 1}}
  cropped_patch: {weight: 1, seed: 5, options: {prompt: paper}}
schedule: [{until: 0.5, level: 1}]
"""


def test_the_counts_are_those_of_the_samples(write_mix):
    path = write_mix(MIX)
    mix, facts = load_mix(path), describe_mix(path, trials=2)
    slots = [mix.slot(index) for index in range(len(mix))]
    assert {name: task["samples"] for name, task in facts["tasks"].items()} == Counter(slot.task for slot in slots)
    tested = load_mix(path, split="heldout")
    assert {name: task["heldout_samples"] for name, task in facts["tasks"].items()} == Counter(
        tested.slot(index).task for index in range(len(tested))
    )
    for number, stage in enumerate(facts["stages"]):
        inside = Counter(slot.task for slot in slots if slot.stage == number)
        assert stage["samples"] == inside
        assert stage["shares"]["flipped_patch"] == inside["flipped_patch"] / (stage["end"] - stage["start"])
    assert [stage["levels"]["flipped_patch"] for stage in facts["stages"]] == [{"1": 1.0}, {"1": 0.75, "2": 0.25}]
    assert (facts["tasks"]["cropped_patch"]["seed"], facts["tasks"]["flipped_patch"]["seed"]) == (5, 0)
    assert json.loads(json.dumps(facts)) == facts


def test_images_are_counted_by_split(write_mix, probe):
    tasks = 'tasks: {probe: , flipped_patch: {source: "synthetic:"}}'
    path = write_mix(f'source: "blank:"\nheldout: {{fraction: 0.25}}\n{tasks}')
    facts = describe_mix(path, trials=1)["tasks"]
    images = facts["probe"]["images"]
    used = {split: load_mix(path, split=split) for split in ("train", "heldout")}
    assert images["train"] + images["heldout"] == 1000
    for split, mix in used.items():
        seen = {mix[index].recipe.image_id for index in range(200) if mix.slot(index).task == "probe"}
        assert 80 < len(seen) <= images[split]
    assert facts["flipped_patch"]["images"] == {"train": None, "heldout": None}


def test_rejections_are_counted_by_reason_and_an_unusable_level_is_an_error_of_that_level(write_mix, probe):
    facts = describe_mix(write_mix('source: "blank:"\nsize: 112\ntasks: {shuffled_patches: , probe: }'), trials=3)
    (trial,) = facts["tasks"]["shuffled_patches"]["levels"].values()
    assert (trial["trials"], trial["rejected"]) == (0, 1.0)
    assert sum(trial["reasons"].values()) == pytest.approx(1.0)
    assert "64 images in a row" in trial["error"]
    assert facts["tasks"]["probe"]["levels"]["1"]["trials"] == 3
    assert facts["tasks"]["probe"]["levels"]["1"]["rejected"] == 0.0


def test_what_is_wrong_with_one_task_does_not_hide_the_others(write_mix):
    text = """
size: 112
samples: 60
tasks:
  flipped_patch: {level: 9}
  cropped_patch: {}
  no_such_task: {weight: 2}
  shuffled_patches: {source: folder:nowhere, options: {}}
  depth_ordering: {options: {promt: x}}
"""
    facts = describe_mix(write_mix(text), trials=2)
    wrong = errors(facts)
    assert wrong.keys() == {"flipped_patch", "no_such_task", "shuffled_patches", "depth_ordering"}
    for task, complaint in (("flipped_patch", "'9'"), ("shuffled_patches", "nowhere"), ("depth_ordering", "promt")):
        assert complaint in wrong[task]
    assert facts["tasks"]["cropped_patch"]["levels"]["1"]["trials"] == 2
    assert facts["tasks"]["no_such_task"]["share"] == pytest.approx(1 / 3)
    page = as_text(facts)
    assert all(message in page for message in wrong.values())
    with pytest.raises(MixError, match="taks"):
        describe_mix(write_mix("taks: {flipped_patch: }"))


def test_a_source_without_a_heldout_image_is_an_error_of_its_task(write_mix, tmp_path):
    (tmp_path / "one photo").mkdir()
    Image.new("RGB", (200, 150)).save(tmp_path / "one photo" / "a.png")
    tasks = "tasks: {flipped_patch: {source: 'folder:one photo'}, cropped_patch: }"
    facts = describe_mix(write_mix(f"size: 112\n{tasks}"), trials=1)
    assert list(errors(facts)) == ["flipped_patch"]
    assert "falls into the" in errors(facts)["flipped_patch"]


def test_the_text_has_every_task_stage_level_and_file(write_mix):
    write_mix(MIX, "base.yaml")
    page = as_text(describe_mix(write_mix("include: base.yaml\nseed: 3"), trials=2))
    for part in (
        "base.yaml",
        "flipped_patch@2",
        "cropped_patch@1",
        "0 .. 44",
        "45 .. 89",
        "1 75%, 2 25%",
        "> 1,000,000",
    ):
        assert part in page


@pytest.mark.parametrize("size", [(28, 28), (20, 70), (112, 84), (448, 336), (449, 701), (1000, 70), (4096, 4000)])
def test_image_tokens_are_those_of_qwen(size):
    module = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_qwen2_vl", reason="the 'train' extra is not installed"
    )
    width, height = size
    rows, columns = module.smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 16384)
    assert image_tokens(width, height) == rows * columns // 28**2


def test_tokens_are_counted_with_a_model_and_estimated_without(write_mix, tmp_path):
    pytest.importorskip("transformers", reason="the 'train' extra is not installed")
    from transformers import AutoProcessor

    from ssrl_core.models.tiny import build_tiny_model
    from ssrl_core.models.tokens import token_ids

    path = write_mix("size: 112\nsamples: 9\ntasks: {cropped_patch: }")
    mix = load_mix(path)
    build_tiny_model(mix, tmp_path / "model", texts=16)
    facts = describe_mix(path, trials=3, model=str(tmp_path / "model"))
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    lengths = [len(token_ids(processor, mix[index])) for index in range(3)]
    trial = facts["tasks"]["cropped_patch"]["levels"]["1"]
    assert facts["tokens"] == "counted"
    assert (trial["most_tokens"], trial["tokens"]) == (max(lengths), round(sum(lengths) / 3))
    guessed = describe_mix(path, trials=3)
    assert guessed["tokens"] == "estimated"
    most = max(estimate_tokens(mix[index]) for index in range(3))
    assert guessed["tasks"]["cropped_patch"]["levels"]["1"]["most_tokens"] == most
