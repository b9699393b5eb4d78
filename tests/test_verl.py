"""The pieces that verl calls, each as verl calls it; the whole of them is in test_training."""

import asyncio
import json
import pickle

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

from ssrl_core.errors import MixError
from ssrl_core.mix import load_mix
from ssrl_core.verl import dataset as module
from ssrl_core.verl.dataset import MixDataset
from ssrl_core.verl.launch import prepare
from ssrl_core.verl.reward import compute_score

FIVE = """
source: "synthetic:?width=192&height=144"
size: 112
samples: 100000
heldout: {samples: 20}
tasks: {shuffled_patches: , flipped_patch: , cropped_patch: , depth_ordering: , relative_position: }
"""


def images_of(row):
    images, videos, audios = asyncio.run(
        MixDataset.process_multi_modal_info(row["raw_prompt"], image_patch_size=14, config=None)
    )
    assert videos is None and audios is None
    return images


def test_a_row_is_small_and_rebuilds_the_very_images_of_its_sample(write_mix):
    path = write_mix(FIVE)
    rows, mix = MixDataset(str(path), tokenizer=None, config=None), load_mix(path)
    assert len(rows) == 100_000
    for index in (0, 1, 2, 3, 4, 99_999):
        row = rows[index]
        assert len(pickle.dumps({key: value for key, value in row.items() if key != "dummy_tensor"})) < 2048
        sample = mix[index].sample
        assert [i.tobytes() for i in images_of(row)] == [i.tobytes() for i in sample.images]
        parts = row["raw_prompt"][0]["content"]
        assert sum(part["type"] == "image" for part in parts) == len(sample.images)
        text = "".join("<image>" if part["type"] == "image" else part["text"] for part in parts)
        assert text == mix[index].prompt
        assert row["reward_model"]["ground_truth"] == sample.truth


def test_the_rollouts_of_a_prompt_share_one_rendering(write_mix, monkeypatch):
    row = MixDataset(str(write_mix(FIVE)), tokenizer=None, config=None)[7]
    calls = []
    monkeypatch.setattr(module, "render", lambda recipe, render=module.render: calls.append(recipe) or render(recipe))
    monkeypatch.setattr(module, "_RENDERED", module._Rendered(capacity=4))

    async def group():
        return await asyncio.gather(
            *(
                MixDataset.process_multi_modal_info(row["raw_prompt"], image_patch_size=14, config=None)
                for _ in range(8)
            )
        )

    results = asyncio.run(group())
    assert len(calls) == 1
    assert all(images == results[0][0] for images, _, _ in results)


def test_a_failed_rendering_is_raised_and_not_remembered(write_mix, monkeypatch):
    row = MixDataset(str(write_mix(FIVE)), tokenizer=None, config=None)[0]
    monkeypatch.setattr(module, "_RENDERED", module._Rendered(capacity=4))
    with monkeypatch.context() as patch:
        patch.setattr(module, "render", lambda recipe: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            images_of(row)
    assert images_of(row)


def test_the_split_is_named_after_the_file(write_mix):
    path = write_mix(FIVE)
    assert len(MixDataset(f"{path}#heldout", tokenizer=None, config=None)) == 20
    assert len(MixDataset([str(path)], tokenizer=None, config=None, max_samples=8)) == 8
    with pytest.raises(MixError, match="after '#'"):
        MixDataset(f"{path}#val", tokenizer=None, config=None)
    with pytest.raises(MixError, match="one mix file"):
        MixDataset([str(path), str(path)], tokenizer=None, config=None)


def test_the_reward_of_a_row_is_that_of_its_task_and_always_has_the_same_keys(write_mix):
    row = MixDataset(str(write_mix(FIVE)), tokenizer=None, config=None)[1]
    arguments = {
        "data_source": row["data_source"],
        "ground_truth": row["reward_model"]["ground_truth"],
        "extra_info": json.loads(json.dumps(row["extra_info"])),
    }
    truth = arguments["ground_truth"]
    right = compute_score(solution_str=f"<think>so</think>\\boxed{{{truth}}}", **arguments)
    wrong = compute_score(solution_str="<think>so</think>\\boxed{nothing}", **arguments)
    shapeless = compute_score(solution_str=truth, **arguments)
    assert (right["score"], right["acc"], right["pred"]) == (1.0, 1.0, truth)
    assert (wrong["score"], wrong["format"]) == (pytest.approx(0.1), 1.0)
    assert shapeless["score"] == 0.0
    assert right.keys() == wrong.keys() == shapeless.keys() >= {"score", "acc", "format", "error", "pred"}


def test_a_verifier_that_fails_costs_a_reward_and_not_the_run(write_mix, probe, monkeypatch, caplog):
    import ssrl_plugin_probe

    row = MixDataset(str(write_mix('source: "blank:"\nsize: 64\ntasks: {probe: }')), tokenizer=None, config=None)[0]
    monkeypatch.setattr(ssrl_plugin_probe, "match_choice", lambda answer, truth: 1 / 0)
    result = compute_score("probe@1", "<think>so</think>\\boxed{A}", "A", row["extra_info"])
    assert (result["score"], result["error"]) == (0.0, 1.0)
    assert "ssrl-plugin-probe" in caplog.text and "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("device", "rollout"), [("cuda", "vllm"), ("cpu", "transformers")])
def test_the_composed_configuration_passes_verls_own_checks(write_mix, tmp_path, device, rollout):
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    write_mix(FIVE)
    recipe = write_mix(
        "mix: mix.yaml\n"
        "data: {train_batch_size: 8}\n"
        "actor_rollout_ref:\n"
        "  model: {path: some/model}\n"
        "  actor: {ppo_mini_batch_size: 8, ppo_micro_batch_size_per_gpu: 1}\n"
        "  rollout: {n: 2, log_prob_micro_batch_size_per_gpu: 1, tensor_model_parallel_size: 1}\n"
        f"trainer: {{default_local_dir: {tmp_path}/run, n_gpus_per_node: 1}}\n",
        "recipe.yaml",
    )
    launch = prepare("grpo", recipe, device=device)
    config = OmegaConf.load(launch.folder / "config.yaml")
    assert config.actor_rollout_ref.rollout.name == rollout
    assert ("VERL_USE_EXTERNAL_MODULES" in launch.env) == (device == "cpu")
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))


def test_a_resumed_run_does_not_overwrite_the_metrics_of_the_first(write_mix, tmp_path):
    write_mix(FIVE)
    recipe = write_mix(f"mix: mix.yaml\ntrainer: {{default_local_dir: {tmp_path}/run}}", "recipe.yaml")
    first = prepare("grpo", recipe, device="cpu")
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    second = prepare("grpo", recipe, device="cpu")
    assert first.env["VERL_FILE_LOGGER_PATH"] != second.env["VERL_FILE_LOGGER_PATH"]
