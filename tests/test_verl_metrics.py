"""Metrics of a training step, and the dataset that adapts to its outcomes."""

import json

import pytest
import yaml

pytest.importorskip("verl", reason="the 'train' extra is not installed")

from torchdata.stateful_dataloader import StatefulDataLoader
from verl.utils.dataset.rl_dataset import collate_fn

from ssrl_core.errors import RecipeError
from ssrl_core.verl.adaptive import LEAST, AdaptiveMixDataset
from ssrl_core.verl.launch import prepare
from ssrl_core.verl.sampler import Outcome, mixed, rates, waits

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
samples: 4000
heldout: {samples: 6}
tasks:
  flipped_patch: {weight: 1, level: 1}
  cropped_patch: {weight: 1, level: {1: 1, 2: 1}}
"""


def outcome(prompt, kind, acc, *, form=1.0, length=10, spans=None):
    return Outcome(prompt, kind, {"acc": acc, "format": form, "error": 0.0, "pred": "A"}, length, spans or {})


STEP = [
    outcome("p", "a@1", 1.0, length=4),
    outcome("p", "a@1", 1.0, length=6),
    outcome("q", "a@1", 1.0),
    outcome("q", "a@1", 0.0, form=0.0),
    outcome("r", "b@2", 0.0),
    outcome("r", "b@2", 0.0),
]


def test_metrics_cover_a_step_as_a_whole_and_each_task_and_level():
    metrics = rates(STEP)
    assert metrics["rollout/all/acc"] == pytest.approx(3 / 6)
    assert metrics["rollout/a@1/acc"] == pytest.approx(3 / 4)
    assert metrics["rollout/b@2/acc"] == 0
    assert metrics["rollout/a@1/format"] == pytest.approx(3 / 4)
    assert metrics["rollout/a@1/length"] == pytest.approx(7.5)
    assert metrics["rollout/all_right"] == pytest.approx(1 / 3)
    assert metrics["rollout/all_wrong"] == pytest.approx(1 / 3)
    assert mixed(STEP) == {"a@1": (1, 2), "b@2": (0, 1)}


def test_a_prompt_with_a_single_rollout_is_right_or_wrong_and_not_mixed():
    alone = [outcome("p", "a@1", 1.0)]  # verl trains on the remaining rollouts of a prompt
    assert rates(alone)["rollout/all_right"] == 1
    assert mixed(alone) == {"a@1": (0, 1)}


def test_waiting_is_the_time_in_which_nothing_is_generated():
    found = [
        outcome(
            "p", "a@1", 1.0, spans={"data": (100.0, 100.4), "generation": (100.5, 103.0), "reward": (103.0, 103.1)}
        ),
        outcome(
            "q", "a@1", 1.0, spans={"data": (100.0, 100.2), "generation": (100.3, 104.0), "reward": (104.0, 104.5)}
        ),
    ]
    metrics = waits(found, begin=100.1, fetched=0.05)
    assert metrics["timing_s/data_fetch"] == 0.05
    assert metrics["timing_s/data_wait"] == pytest.approx(0.05 + 0.2)
    assert metrics["timing_s/reward_wait"] == pytest.approx(0.5)
    assert metrics["timing_s/render"] == pytest.approx(0.3)
    assert waits(STEP, begin=0.0, fetched=0.0) == {"timing_s/data_fetch": 0.0}  # another agent loop gives no spans


@pytest.fixture
def mix_file(write_mix):
    return write_mix(MIX)


class Training:
    """verl's dataloader over the dataset, and a simulated policy with a share ``useful`` of mixed prompts by kind."""

    def __init__(self, mix_file, useful, state=None):
        self.dataset, self.useful = AdaptiveMixDataset(str(mix_file), None, {"dataloader_num_workers": 0}), useful
        self.loader = StatefulDataLoader(self.dataset, batch_size=20, collate_fn=collate_fn, drop_last=True)
        if state is not None:
            self.loader.load_state_dict(state)
        self.batches = iter(self.loader)

    def step(self):
        """The kinds and recipes of the next batch. Afterwards the dataset learns its outcomes."""
        rows = next(self.batches)
        kinds = rows["data_source"].tolist()
        self.dataset.learn(
            {kind: (round(self.useful[kind] * (n := kinds.count(kind))), n) for kind in dict.fromkeys(kinds)}
        )
        parts = [part for prompt in rows["raw_prompt"] for part in prompt[0]["content"]]
        return kinds, [part["recipe"] for part in parts if "recipe" in part]


def test_prompts_of_kinds_that_are_sometimes_solved_come_more_often(mix_file):
    training = Training(mix_file, {"flipped_patch@1": 0.0, "cropped_patch@1": 1.0, "cropped_patch@2": 0.5})
    kinds = [kind for _ in range(12) for kind in training.step()[0]][40:]
    share = {kind: kinds.count(kind) / len(kinds) for kind in training.useful}
    # The mix has 1/2, 1/4 and 1/4 of each kind, of which 1/10, all, and about a half are taken.
    assert share["flipped_patch@1"] < 0.25 < 0.4 < share["cropped_patch@1"]
    assert LEAST / 2 < share["cropped_patch@2"] < share["cropped_patch@1"]
    assert share["flipped_patch@1"] > 0  # a kind is never dropped, so that progress on it shows


def test_without_outcomes_or_with_no_solved_prompt_the_dataset_is_the_mix_in_its_order(mix_file):
    training = Training(mix_file, dict.fromkeys(("flipped_patch@1", "cropped_patch@1", "cropped_patch@2"), 0.0))
    recipes = [recipe for _ in range(3) for recipe in training.step()[1]]
    mix = training.dataset.mix
    assert recipes == [mix[index].recipe.to_json() for index in range(60)]


def test_a_resumed_run_continues_with_the_same_prompts(mix_file):
    useful = {"flipped_patch@1": 0.0, "cropped_patch@1": 1.0, "cropped_patch@2": 0.5}
    first = Training(mix_file, useful)
    for _ in range(3):
        first.step()
    state = json.loads(json.dumps(first.loader.state_dict()["dataset_state"]))
    saved = {**first.loader.state_dict(), "dataset_state": state}  # the only state that data.pt saves
    resumed = Training(mix_file, useful, saved)
    going_on, after = [first.step() for _ in range(3)], [resumed.step() for _ in range(3)]
    assert going_on == after
    anew = Training(mix_file, useful)
    assert anew.step() != after[0]


def test_the_held_out_split_does_not_adapt(mix_file):
    rows = AdaptiveMixDataset(f"{mix_file}#heldout", None, {"dataloader_num_workers": 0})
    rows.learn({"flipped_patch@1": (0, 10), "cropped_patch@1": (5, 10)})
    truths = [json.loads(rows[i]["reward_model"]["ground_truth"])["truth"] for i in range(len(rows))]
    assert truths == [rows.mix[i].sample.truth for i in range(6)]


def test_settings_that_the_adaptive_dataset_cannot_work_with_are_refused(write_mix, mix_file):
    adaptive = "mix: mix.yaml\ndata: {custom_cls: {name: AdaptiveMixDataset}, dataloader_num_workers: 0}"
    assert prepare("grpo", write_mix(adaptive, "recipe.yaml"), device="cpu").config["data"]["shuffle"] is False
    with pytest.raises(RecipeError, match=r"dataloader_num_workers=0"):
        prepare("grpo", write_mix(adaptive, "recipe.yaml"), ["data.dataloader_num_workers=2"], device="cpu")
    with pytest.raises(RecipeError, match="needs the replay buffer of ssrl-core"):
        prepare("grpo", write_mix(adaptive, "recipe.yaml"), ["algorithm.filter_groups.enable=true"], device="cpu")
    content = yaml.safe_load(MIX) | {"schedule": [{"until": 0.5, "level": 1}]}
    write_mix(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match="a schedule and"):
        prepare(
            "grpo",
            write_mix(adaptive, "recipe.yaml"),
            ["trainer.total_epochs=1", "data.train_batch_size=256"],
            device="cpu",
        )


@pytest.mark.parametrize("override", ["algorithm.filter_groups.enable=true", "trainer.v1.trainer_mode=colocate_async"])
def test_verls_own_buffer_is_used_with_group_filtering_and_asynchronous_training(write_mix, mix_file, override):
    recipe = write_mix("mix: mix.yaml", "recipe.yaml")
    sampler = prepare("grpo", recipe, device="cpu").config["trainer"]["v1"]["sampler"]["custom_sampler"]
    assert sampler == {"path": "pkg://ssrl_core.verl.sampler", "name": "PromptReplayBuffer"}
    sampler = prepare("grpo", recipe, [override], device="cpu").config["trainer"]["v1"]["sampler"]["custom_sampler"]
    assert sampler == {"path": None, "name": None}
