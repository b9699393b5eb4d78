"""What ``ssrl mix`` prints, compared with the samples of the mix."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ssrl_core.cli.mix import as_text, describe_mix, errors
from ssrl_core.errors import MixError, SSRLError
from ssrl_core.mix import load_mix
from ssrl_core.models.tokens import FAMILIES, estimate_tokens, image_tokens, token_ids, user_message

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
    assert "heldout" in errors(facts)["flipped_patch"]


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


# Image processors as their models on the Hugging Face hub configure them (preprocessor_config.json).
PROCESSORS = {
    "Qwen2.5-VL": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "Qwen3-VL": {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_visual_tokens_are_those_of_the_image_processor(family):
    transformers = pytest.importorskip("transformers", reason="the 'train' extra is not installed")
    processor = transformers.Qwen2VLImageProcessor(**PROCESSORS[family.name])
    for width, height in [(20, 70), (112, 84), (256, 256), (448, 336), (449, 701)]:
        grid = processor(images=[Image.new("RGB", (width, height))], return_tensors="np")["image_grid_thw"]
        assert image_tokens(width, height, family) == grid.prod() // 4
    sizes = np.exp(np.random.default_rng(0).uniform(np.log(8), np.log(9000), (500, 2))).astype(int).tolist()
    sizes = [(width, height) for width, height in sizes if max(width, height) < 200 * min(width, height)]
    sizes += [(19, 19), (4096, 4000), (8000, 8000)]
    for width, height in sizes:
        expected = processor.get_number_of_image_patches(height, width, {}) // 4
        assert image_tokens(width, height, family) == expected, (width, height)


def test_tokens_are_counted_with_a_model_and_estimated_without(tiny_model, write_mix):
    pytest.importorskip("transformers", reason="the 'train' extra is not installed")
    text = "size: 112\nsamples: 9\ntasks: {cropped_patch: }"
    _, processor, mix, folder = tiny_model(text)
    facts = describe_mix(path := write_mix(text), trials=3, model=str(folder))
    lengths = [len(token_ids(processor, mix[index])) for index in range(3)]
    trial = facts["tasks"]["cropped_patch"]["levels"]["1"]
    assert facts["tokens"] == "counted with the model"
    assert (trial["most_tokens"], trial["tokens"]) == (max(lengths), round(sum(lengths) / 3))
    guessed = describe_mix(path, trials=3)
    assert guessed["tokens"] == "estimated for Qwen2.5-VL"
    most = max(estimate_tokens(mix[index]) for index in range(3))
    assert guessed["tasks"]["cropped_patch"]["levels"]["1"]["most_tokens"] == most


def test_tokens_are_estimated_for_the_family_of_a_model_whose_processor_cannot_be_loaded(write_mix, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="the 'train' extra is not installed")

    def unreachable(name):
        raise OSError(f"{name}: no connection")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", unreachable)
    path = write_mix("size: 112\nsamples: 9\ntasks: {cropped_patch: }")
    facts = describe_mix(path, trials=3, model="Qwen/Qwen3-VL-4B-Instruct")
    assert facts["tokens"] == "estimated for Qwen3-VL: the processor cannot be loaded"
    most = max(estimate_tokens(load_mix(path)[index], FAMILIES[1]) for index in range(3))
    assert facts["tasks"]["cropped_patch"]["levels"]["1"]["most_tokens"] == most
    for unknown in ("someone/model", "./Qwen3-VL"):
        with pytest.raises(SSRLError, match="no connection"):
            describe_mix(path, trials=1, model=unknown)


def test_a_message_has_the_texts_and_images_of_the_prompt_in_order():
    message = user_message("a<image><image> b", lambda number: {"type": "image", "number": number})
    assert message["role"] == "user"
    assert message["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image", "number": 0},
        {"type": "image", "number": 1},
        {"type": "text", "text": " b"},
    ]
