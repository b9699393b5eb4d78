"""A curriculum as a function of the index: the same for every worker, and after every interruption."""

import json
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ssrl_core.errors import MixError, RecipeError
from ssrl_core.form import extract_answer
from ssrl_core.mix import load_mix
from ssrl_core.mix.schedule import Stage, Turns

MIX = """
source: "synthetic:?width=128&height=96"
size: 112
samples: 200
heldout: {samples: 20}
tasks:
  flipped_patch: {weight: 1, level: 3}
  cropped_patch: {weight: 1}
  shuffled_patches: {weight: 2, level: {2: 1, 3: 1}}
"""
SCHEDULE = """
schedule:
  - {until: 0.3, level: 1}
  - {until_sample: 120, tasks: {cropped_patch: {weight: 0}, shuffled_patches: {weight: 3, level: 2}}}
"""


def digest(example):
    pixels = [(image.size, image.tobytes()) for image in example.sample.images]
    return pixels, example.prompt, example.sample.truth, json.dumps(dict(example.sample.params), sort_keys=True)


def slots(mix, start=0, end=None):
    return [mix.slot(index) for index in range(start, len(mix) if end is None else end)]


# ---- the order ----


def stage(start, end, weights):
    names = [str(position) for position in range(len(weights))]
    return Stage(start, end, dict(zip(names, weights, strict=True)), {}, {})


@st.composite
def planned(draw):
    tasks = draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 5), min_size=tasks, max_size=tasks).filter(any)
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [stage(end - length, end, draw(row)) for length, end in zip(lengths, ends, strict=True)]


@given(planned())
def test_a_task_counts_on_from_stage_to_stage_and_never_repeats_a_sample(stages):
    turns = Turns(stages)
    numbers = {}
    for index in range(stages[-1].end):
        numbers.setdefault(turns[index].task, []).append(turns[index].number)
    for task, counted in numbers.items():
        assert counted == list(range(len(counted)))
        assert len(counted) == sum(counts[task] for counts in turns.counts)


@given(planned())
def test_every_batch_within_a_stage_has_the_stages_proportions(stages):
    turns = Turns(stages)
    for part in stages:
        tasks = [turns[index].task for index in range(part.start, part.end)]
        total = sum(part.weights.values())
        for start in range(len(tasks)):
            for end in range(start + 1, len(tasks) + 1):
                found = Counter(tasks[start:end])
                for task, weight in enumerate(part.weights.values()):
                    assert abs(found[task] - weight / total * (end - start)) < 2
                    assert weight or not found[task]


# ---- the mix ----


def test_each_stage_has_its_own_weights_and_levels_and_the_mix_itself_comes_last(write_mix):
    mix = load_mix(write_mix(MIX + SCHEDULE))
    assert [(part.start, part.end) for part in mix.stages] == [(0, 60), (60, 120), (120, 200)]
    first, second, last = (Counter((s.task, s.level) for s in slots(mix, p.start, p.end)) for p in mix.stages)
    assert first == {("flipped_patch", "1"): 15, ("cropped_patch", "1"): 15, ("shuffled_patches", "1"): 30}
    assert second == {("flipped_patch", "3"): 15, ("shuffled_patches", "2"): 45}
    assert last.keys() == {
        ("flipped_patch", "3"),
        ("cropped_patch", "1"),
        ("shuffled_patches", "2"),
        ("shuffled_patches", "3"),
    }
    assert (last["flipped_patch", "3"], last["cropped_patch", "1"]) == (20, 20)
    assert mix.shares["shuffled_patches"] == pytest.approx((30 + 45 + 40) / 200)


def test_a_sample_does_not_change_when_a_schedule_is_added(write_mix):
    plain, staged = load_mix(write_mix(MIX, "a.yaml")), load_mix(write_mix(MIX + SCHEDULE, "b.yaml"))
    before = {slot[:3]: index for index, slot in enumerate(slots(plain))}
    after = {slot[:3]: index for index, slot in enumerate(slots(staged))}
    both = sorted(before.keys() & after.keys())
    assert {slot[0] for slot in both} == {"flipped_patch", "cropped_patch", "shuffled_patches"}
    moved = [slot for slot in both if before[slot] != after[slot]]
    assert len(moved) > 20
    for slot in moved[::5]:
        assert digest(plain[before[slot]]) == digest(staged[after[slot]])


def test_the_heldout_split_is_that_of_the_mix_without_its_schedule(write_mix):
    plain, staged = (
        load_mix(write_mix(text, name), split="heldout") for text, name in ((MIX, "a"), (MIX + SCHEDULE, "b"))
    )
    assert slots(plain) == slots(staged)
    assert [digest(plain[index]) for index in range(6)] == [digest(staged[index]) for index in range(6)]


def test_a_task_of_weight_0_appears_only_in_the_stages_that_give_it_one(write_mix):
    text = MIX.replace("cropped_patch: {weight: 1}", "cropped_patch: {weight: 0}")
    schedule = "schedule: [{until: 0.5, tasks: {cropped_patch: {weight: 2}}}]"
    path = write_mix(text + schedule)
    mix = load_mix(path)
    assert {slot.stage for slot in slots(mix) if slot.task == "cropped_patch"} == {0}
    assert "cropped_patch" not in {slot.task for slot in slots(load_mix(path, split="heldout"))}
    tried = {(example.recipe.task, example.recipe.level) for example in mix.some_of_each()}
    assert ("cropped_patch", "1") in tried


def test_every_level_of_every_stage_is_tried_before_a_run(write_mix):
    tried = {(e.recipe.task, e.recipe.level) for e in load_mix(write_mix(MIX + SCHEDULE)).some_of_each()}
    assert tried == {(slot.task, slot.level) for slot in slots(load_mix(write_mix(MIX + SCHEDULE)))}


def test_a_schedule_in_another_process_is_the_same(write_mix):
    import pickle

    mix = load_mix(write_mix(MIX + SCHEDULE))
    again = pickle.loads(pickle.dumps(mix))
    assert [again.slot(index) for index in (199, 3, 60, 59)] == [mix.slot(index) for index in (199, 3, 60, 59)]


@pytest.mark.parametrize(
    ("schedule", "complaints"),
    [
        ("[{until: 0.5, tasks: {fliped_patch: {weight: 1}}}]", ["schedule[0].tasks.fliped_patch", "'flipped_patch'?"]),
        ("[{until: 0.5, level: 9}]", ["schedule[0].level", "'9' is not a level of 'flipped_patch'"]),
        ("[{until: 0.5, tasks: {cropped_patch: {level: 9}}}]", ["schedule[0].tasks.cropped_patch.level", "'9'"]),
        ("[{level: 1}]", ["schedule[0]", "either until", "or until_sample"]),
        ("[{until: 0.5, until_sample: 3}]", ["schedule[0]", "either until"]),
        ("[{until: 0.5}, {until: 0.5}]", ["schedule[1]", "previous stage, which ends at 100"]),
        ("[{until: 0.5}, {until_sample: 30}]", ["schedule[1]", "ends at sample 30"]),
        ("[{until_sample: 201}]", ["schedule[0]", "within the 200 samples of the mix"]),
        ("[{until: 0.001}]", ["schedule[0]", "ends at sample 0"]),
        ("[{until: 1.5}]", ["schedule[0].until", "1.5", "less than or equal to 1"]),
        (
            "[{until: 0.5, tasks: {cropped_patch: {wieght: 1}}}]",
            ["schedule[0].tasks.cropped_patch.wieght", "'weight'?"],
        ),
        ("[{untill: 0.5}]", ["schedule[0].untill", "Did you mean 'until'?"]),
        (
            "[{until: 1, tasks: {cropped_patch: &no {weight: 0}, flipped_patch: *no, shuffled_patches: *no}}]",
            ["schedule[0]", "at least one task"],
        ),
        ("{until: 0.5}", ["schedule", "should be a valid list"]),
    ],
)
def test_a_mistake_in_a_schedule_is_explained_by_stage_and_key(write_mix, schedule, complaints):
    path = write_mix(f"{MIX}schedule: {schedule}")
    with pytest.raises(MixError) as error:
        load_mix(path)
    for complaint in (path.name, *complaints):
        assert complaint in str(error.value)


# ---- verl ----


def rl_loader(path, *, batch, workers=0, shuffle=False):
    """verl's own sampler and the loader that it puts around a dataset."""
    from omegaconf import OmegaConf
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler

    from ssrl_core.verl.dataset import MixDataset

    dataset = MixDataset(str(path), tokenizer=None, config=None)
    sampler = create_rl_sampler(OmegaConf.create({"shuffle": shuffle, "seed": 1}), dataset)
    return StatefulDataLoader(
        dataset, batch_size=batch, num_workers=workers, drop_last=True, sampler=sampler, collate_fn=list
    )


def rows(loader):
    return [[(row["index"], row["data_source"], row["raw_prompt"]) for row in batch] for batch in loader]


def test_a_run_that_is_resumed_in_the_middle_of_a_stage_sees_the_remaining_samples(write_mix):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX.replace("200", "40") + SCHEDULE.replace("120", "24"))
    mix = load_mix(path)
    uninterrupted = rows(rl_loader(path, batch=4))
    indices = [index for batch in uninterrupted for index, _, _ in batch]
    assert indices == list(range(40))
    assert [source for batch in uninterrupted for _, source, _ in batch] == [f"{s.task}@{s.level}" for s in slots(mix)]

    first = rl_loader(path, batch=4, workers=2)
    batches = iter(first)
    seen = [next(batches) for _ in range(4)]  # 16 samples: the second stage has begun, and is not over
    state = first.state_dict()
    second = rl_loader(path, batch=4, workers=2)
    second.load_state_dict(state)
    assert rows(seen) + rows(second) == uninterrupted


def sft_loaders(path, processes, processor, *, batch):
    """What verl's SFT trainer builds on each of so many processes, with its own code."""
    from omegaconf import OmegaConf
    from verl.trainer.sft_trainer import SFTTrainer

    from ssrl_core.verl.dataset import MixSFTDataset, open_mix

    class Texts(MixSFTDataset):
        """Rows as they are before a tokenizer sees them."""

        def __init__(self, path):
            self.completion, self.max_samples, self.parquet_files = None, -1, str(path)
            self.apply_chat_template_kwargs, self.processor, self.tokenizer = {}, processor, processor.tokenizer
            self._read_files_and_process()

        def __getitem__(self, item):
            row = self.dataframe.iloc[item].to_dict()
            return row["messages"][0]["content"], extract_answer(row["messages"][1]["content"])

    config = OmegaConf.create({"data": {"train_batch_size": batch, "pad_mode": "no_padding", "num_workers": 0}})
    dataset = Texts(path)
    loaders = []
    for rank in range(processes):
        engine = SimpleNamespace(
            get_data_parallel_rank=lambda rank=rank: rank, get_data_parallel_size=lambda: processes
        )
        trainer = SimpleNamespace(config=config, engine=engine, train_dataset=dataset, val_dataset=None)
        SFTTrainer._build_dataloader(trainer)
        trainer.train_dataloader.collate_fn = list
        loaders.append(trainer.train_dataloader)
    assert open_mix(str(path)).config.samples == len(dataset)
    return loaders


def test_the_cold_start_too_goes_through_a_schedule_in_order(write_mix, tiny_model):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX.replace("200", "40") + SCHEDULE.replace("120", "24"))
    mix = load_mix(path)
    steps = list(zip(*sft_loaders(path, 2, tiny_model(MIX)[1], batch=8), strict=True))
    assert len(steps) == 5
    for step, batches in enumerate(steps):
        seen = sorted(row for batch in batches for row in batch)
        examples = [mix[index] for index in range(8 * step, 8 * step + 8)]
        assert seen == sorted((example.prompt, example.sample.truth) for example in examples)


def test_a_resumed_cold_start_sees_the_remaining_samples(write_mix, tiny_model):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX.replace("200", "40") + SCHEDULE.replace("120", "24"))
    (whole,) = sft_loaders(path, 1, tiny_model(MIX)[1], batch=8)
    uninterrupted = list(whole)
    (first,) = sft_loaders(path, 1, tiny_model(MIX)[1], batch=8)
    batches = iter(first)
    seen = [next(batches), next(batches)]
    (second,) = sft_loaders(path, 1, tiny_model(MIX)[1], batch=8)
    second.load_state_dict(first.state_dict())
    assert seen + list(second) == uninterrupted


def test_without_a_schedule_the_cold_start_is_shuffled_by_verl_as_ever(write_mix, tiny_model):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX.replace("200", "40"))
    mix = load_mix(path)
    (loader,) = sft_loaders(path, 1, tiny_model(MIX)[1], batch=8)
    order = list(loader.sampler)
    assert order != sorted(order)
    first = next(iter(loader))
    assert first == [(mix[index].prompt, mix[index].sample.truth) for index in order[:8]]


CONFIG = {"data": {"train_batch_size": 10, "shuffle": False}, "trainer": {"total_epochs": 1}}


def check(path, *, stage="grpo", steps=None, **changes):
    from ssrl_core.verl.checks import check_schedule

    trainer = CONFIG["trainer"] | {"total_training_steps": steps} | changes.pop("trainer", {})
    check_schedule(stage, {"data": CONFIG["data"] | changes, "trainer": trainer}, path)


def test_a_run_that_would_shuffle_a_schedule_or_go_through_it_twice_is_refused(write_mix, caplog):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX + SCHEDULE)
    with caplog.at_level(logging.WARNING):
        check(path)
        check(path, steps=20, trainer={"total_epochs": 30})
    assert not caplog.records
    with pytest.raises(RecipeError, match=r"data\.shuffle = True: must be false, because .* has a schedule"):
        check(path, shuffle=True)
    with pytest.raises(RecipeError, match=r"21 steps of 10 prompts .* Set 'samples' in the mix to 210"):
        check(path, steps=21, trainer={"total_epochs": 30})
    for stage in ("grpo", "sft"):
        with pytest.raises(RecipeError, match=r"trainer\.total_training_steps=20 at most"):
            check(path, stage=stage, trainer={"total_epochs": 2})
    with pytest.raises(RecipeError, match="would start again"):
        check(path, steps=11, trainer={"total_epochs": 2}, train_max_samples=100)
    check(write_mix(MIX, "plain.yaml"), shuffle=True, trainer={"total_epochs": 2})


def test_a_run_that_ends_before_the_last_stage_is_warned_of(write_mix, caplog):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    path = write_mix(MIX + SCHEDULE)
    with caplog.at_level(logging.WARNING):
        check(path, steps=10)
    assert "the run ends after 10 steps of 10 prompts, in stage 2 of 3" in caplog.text


def test_the_example_of_a_curriculum_is_laid_out_over_its_run():
    folder = Path(__file__).parents[1] / "examples" / "curriculum"
    mix, recipe = load_mix(folder / "mix.yaml"), yaml.safe_load((folder / "grpo.yaml").read_text())
    assert len(mix) % recipe["data"]["train_batch_size"] == 0
    assert recipe["trainer"]["total_epochs"] == 1
    levels = [{slot.level for slot in slots(mix, part.start, part.end)} for part in mix.stages]
    assert levels == [{"1"}, {"1"}, {"1", "2"}]
    assert {slot.task for slot in slots(mix, 0, 60)} == set(mix.tasks) - {"shuffled_patches"}
