"""The parts that verl calls, called as verl does, and everything before verl starts. test_training runs verl itself."""

import asyncio
import importlib.util
import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("verl", reason="the 'train' extra is not installed")

from typer.testing import CliRunner

from ssrl_core import Sample
from ssrl_core.cli import app
from ssrl_core.errors import MixError, PluginFailed, RecipeError
from ssrl_core.mix import load_mix
from ssrl_core.models.loading import ModelError, load_processor
from ssrl_core.models.tokens import token_ids
from ssrl_core.reward import Key, compute_score
from ssrl_core.sources import open_source
from ssrl_core.verl import dataset as module
from ssrl_core.verl.checks import CHECKPOINTED
from ssrl_core.verl.dataset import MixDataset
from ssrl_core.verl.launch import Launch, prepare, run
from ssrl_core.verl.recipe import override

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
        assert Key.from_json(row["reward_model"]["ground_truth"]).truth == sample.truth


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
    for split in ("heldout", "validation"):
        rows = MixDataset(f"{path}#{split}", tokenizer=None, config=None)
        assert len(rows) == 20 and Key.from_json(rows[0]["reward_model"]["ground_truth"])
        assert images_of(rows[0]) == list(load_mix(path, split=split)[0].sample.images)
    assert len(MixDataset([str(path)], tokenizer=None, config=None, max_samples=8)) == 8
    with pytest.raises(MixError, match="cannot read the mix"):
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
    truth = Key.from_json(arguments["ground_truth"]).truth
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
    key = row["reward_model"]["ground_truth"]
    result = compute_score("probe@1", "<think>so</think>\\boxed{A}", key, row["extra_info"])
    assert (result["score"], result["error"]) == (0.0, 1.0)
    assert "ssrl-plugin-probe" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_row_of_another_dataset_is_refused_with_an_explanation():
    with pytest.raises(ValueError, match="of 'gsm8k' is not a key of ssrl"):
        compute_score("gsm8k", "<think>so</think>\\boxed{A}", "A", {})


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
    config = OmegaConf.create(launch.config)
    assert config.actor_rollout_ref.rollout.name == rollout
    assert ("VERL_USE_EXTERNAL_MODULES" in launch.env) == (device == "cpu")
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))


def test_a_resumed_run_continues_in_the_same_run_of_wandb_and_another_run_does_not(write_mix, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_mix(FIVE)
    recipe = write_mix(f"mix: mix.yaml\ntrainer: {{default_local_dir: {tmp_path}/run, logger: [wandb]}}", "recipe.yaml")
    first = prepare("grpo", recipe, device="cpu")
    run(without_verl(first), on_step=print)
    (tmp_path / "run" / CHECKPOINTED).write_text("1")
    resumed, other = (
        prepare("grpo", recipe, [f"trainer.resume_mode={mode}"], device="cpu") for mode in ("auto", "disable")
    )
    assert first.env["WANDB_RUN_ID"] == resumed.env["WANDB_RUN_ID"] != other.env["WANDB_RUN_ID"]
    assert f'env_vars.WANDB_RUN_ID="{first.env["WANDB_RUN_ID"]}"' in " ".join(resumed.argv)
    monkeypatch.setenv("WANDB_RUN_ID", "own")
    assert prepare("grpo", recipe, device="cpu").env["WANDB_RUN_ID"] == "own"


def test_settings_that_verl_leaves_open_can_be_set(write_mix):
    write_mix(FIVE)
    recipe = write_mix(
        "mix: mix.yaml\n"
        "actor_rollout_ref:\n"
        "  rollout: {engine_kwargs: {vllm: {disable_mm_preprocessor_cache: true}}}\n"
        "  actor: {optim: {override_optimizer_config: {eps: 1.0e-6}}}\n"
        "reward: {custom_reward_function: {reward_kwargs: {note: 1}}}\n",
        "recipe.yaml",
    )
    policy = prepare("grpo", recipe, device="cuda").config["actor_rollout_ref"]
    assert policy["rollout"]["engine_kwargs"]["vllm"]["disable_mm_preprocessor_cache"] is True
    assert policy["actor"]["optim"]["override_optimizer_config"] == {"eps": 1.0e-6}


def test_a_run_leaves_a_model_unless_told_otherwise(write_mix):
    write_mix(FIVE)
    config = prepare("grpo", write_mix("mix: mix.yaml", "recipe.yaml"), device="cuda").config
    assert config["trainer"]["save_freq"] > 0
    assert "hf_model" in config["actor_rollout_ref"]["actor"]["checkpoint"]["save_contents"]


@pytest.mark.parametrize(
    "completion",
    ["<think>so</think>\\boxed{truth}", "<think>so</think>\\boxed{{truth}}", "\\boxed{{{truth}}}", "{x}"],
)
def test_a_completion_that_does_not_box_its_truth_is_refused(write_mix, completion):
    write_mix(FIVE)
    recipe = write_mix(f"mix: mix.yaml\ndata: {{completion: {json.dumps(completion)}}}", "recipe.yaml")
    with pytest.raises(RecipeError, match=r"data\.completion"):
        prepare("sft", recipe, device="cpu")


def test_a_prompt_that_is_too_long_for_the_configuration_is_refused(write_mix, tiny_model):
    write_mix(FIVE)
    *_, model = tiny_model(FIVE)
    text = f"mix: mix.yaml\nactor_rollout_ref: {{model: {{path: {model}}}}}\ndata: {{max_prompt_length: 30}}"
    with pytest.raises(RecipeError, match=r"data\.max_prompt_length = 30 is too small"):
        prepare("grpo", write_mix(text, "recipe.yaml"), device="cpu")
    prepare("grpo", write_mix(text.replace("30", "1000"), "recipe.yaml"), device="cpu")


def test_the_length_of_prompts_is_that_of_all_shapes_of_images_and_of_the_completion(write_mix, tiny_model, tmp_path):
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    for number, height in enumerate([120] * 9 + [240]):
        Image.fromarray(pixels[:height]).save(tmp_path / "photos" / f"{number}.png")
    path = write_mix("source: folder:photos\nsize: 224\nheldout: {samples: 5}\ntasks: {flipped_patch: }")
    mix = load_mix(path)
    _, processor, _, model = tiny_model(FIVE)
    lengths = [len(token_ids(processor, mix[k])) for k in range(16)]
    assert lengths[0] == min(lengths) < max(lengths)
    text = f"mix: mix.yaml\nactor_rollout_ref: {{model: {{path: {model}}}}}\ndata: {{max_prompt_length: LIMIT}}"
    with pytest.raises(RecipeError, match=rf"a prompt of 'flipped_patch', level '1', has {max(lengths)} tokens"):
        prepare("grpo", write_mix(text.replace("LIMIT", str(max(lengths) - 1)), "recipe.yaml"), device="cpu")
    prepare("grpo", write_mix(text.replace("LIMIT", str(max(lengths))), "recipe.yaml"), device="cpu")
    text = f"mix: mix.yaml\nmodel: {{path: {model}}}\ndata: {{max_length: {max(lengths)}}}"
    with pytest.raises(RecipeError, match="a prompt and completion of 'flipped_patch'"):
        prepare("sft", write_mix(text, "recipe.yaml"), device="cpu")


def test_the_prompts_of_a_model_by_its_hub_name_are_measured_by_an_estimate(write_mix, caplog):
    write_mix(FIVE)
    text = "mix: mix.yaml\nactor_rollout_ref: {model: {path: MODEL}}\ndata: {max_prompt_length: 40}"
    recipe = write_mix(text.replace("MODEL", "Qwen/Qwen2.5-VL-0B-Instruct"), "recipe.yaml")
    with pytest.raises(RecipeError, match=r"max_prompt_length = 40 is too small: .*\(estimated for Qwen2\.5-VL\)"):
        prepare("grpo", recipe, device="cpu")
    recipe = write_mix(text.replace("MODEL", "some/model"), "recipe.yaml")
    assert prepare("grpo", recipe, device="cpu").tokens == (
        None,
        "the model is not on this machine, and its family is unknown",
    )


def test_few_held_out_images_are_a_warning(write_mix, pictures, install_toy, caplog):
    install_toy()
    write_mix(f"source: 'folder:{pictures}'\nsize: 64\nheldout: {{samples: 100}}\ntasks: {{toy: }}")
    prepare("grpo", write_mix("mix: mix.yaml", "recipe.yaml"), device="cpu")
    assert re.search(r"few held-out images: toy has [1-9] image\(s\) for 100 samples\. ", caplog.text)
    caplog.clear()
    write_mix(FIVE)
    prepare("grpo", write_mix("mix: mix.yaml", "recipe.yaml"), device="cpu")
    assert "few held-out images" not in caplog.text


def test_a_missing_key_of_wandb_is_found_before_the_run(write_mix, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    write_mix(FIVE)
    recipe = write_mix("mix: mix.yaml\ntrainer: {logger: [console, wandb]}", "recipe.yaml")
    with pytest.raises(RecipeError, match="there is no key for it: set WANDB_API_KEY"):
        prepare("grpo", recipe, device="cpu")
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        prepare("grpo", recipe, device="cpu")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123456789")
    prepare("grpo", recipe, device="cpu")


def test_a_recipe_for_other_machines_is_checked_and_summed_up_on_one_screen(write_mix, tmp_path):
    write_mix(FIVE)
    recipe = write_mix(
        "mix: mix.yaml\n"
        "data: {train_batch_size: 256, max_prompt_length: 700, max_response_length: 300}\n"
        "actor_rollout_ref:\n"
        "  model: {path: /elsewhere/qwen2.5-vl-7b-sft}\n"
        "  actor: {ppo_mini_batch_size: 128, ppo_micro_batch_size_per_gpu: 2}\n"
        "  rollout: {n: 5, log_prob_micro_batch_size_per_gpu: 4}\n"
        f"trainer: {{n_gpus_per_node: 8, nnodes: 4, total_training_steps: 360, default_local_dir: {tmp_path}/run}}\n",
        "recipe.yaml",
    )
    result = CliRunner().invoke(app(), ["train", str(recipe), "--dry-run", "--device", "cuda"], catch_exceptions=False)
    lines = result.output.splitlines()
    assert result.exit_code == 0 and len(lines) < 20
    for part in (
        "qwen2.5-vl-7b-sft, 8.29 billion parameters",
        "4 node(s) x 8 GPU(s)",
        "256 prompts x 5 rollouts: 40 rollouts a GPU; 2 update(s) of 640 rollouts, 20 a GPU in 10 micro-batches of 2",
        "(estimated for Qwen2.5-VL), limit 700; a response 300",
        "GiB a GPU, of which activations",
        "every 20 steps, 2 on disk (older ones are removed); 124 GiB each, 247 GiB in all",
    ):
        assert part in result.output, part
    assert not (tmp_path / "run").exists()
    whole = CliRunner().invoke(app(), ["train", str(recipe), "--dry-run", "--device", "cuda", "-v"]).output
    assert "ppo_mini_batch_size: 128" in whole and "verl.trainer.main_ppo" in whole


def test_a_machine_without_a_gpu_neither_passes_nor_runs_as_one_with_a_gpu(write_mix, tmp_path):
    write_mix(FIVE)
    recipe = write_mix(
        f"mix: mix.yaml\ntrainer: {{n_gpus_per_node: 1, default_local_dir: {tmp_path}/run}}", "recipe.yaml"
    )
    with pytest.raises(RecipeError, match=r"trainer\.device = cuda, but the configuration is made for cpu"):
        prepare("grpo", recipe, ["trainer.device=cuda"], device="cpu")
    with pytest.raises(RecipeError, match="this machine has no GPU"):
        run(prepare("grpo", recipe, device="cuda"), on_step=print)


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        ("data.train_batch_size=0", "data.train_batch_size = 0: must be a whole number of at least 1"),
        ("actor_rollout_ref.rollout.n=many", "rollout.n = 'many': must be a whole number"),
        ("trainer.total_training_steps=abc", "total_training_steps = 'abc': must be a whole number"),
        ("actor_rollout_ref.actor.optim.lr=fast", "optim.lr = 'fast': must be a number"),
        ("trainer.n_gpus_per_node=8", "n_gpus_per_node x nnodes = 8, but torch finds no GPU"),
        ("actor_rollout_ref.model.path=/nowhere", "model.path = /nowhere: there is no such folder"),
        ("actor_rollout_ref.model.path=FOLDER", "this folder contains no model"),
        ("trainer.save_on_signal=-1", "trainer.save_on_signal = -1: must be a number of seconds above 0"),
        ("trainer.time_limit=1h", "trainer.time_limit = '1h': must be a number of seconds"),
        ("actor_rollout_ref.actor.grad_clip=0.5", "grad_clip: it has no effect: no code .*optim.clip_grad"),
        ("trainer.balance_batch=false", "trainer.balance_batch: it has no effect: .*legacy trainer"),
        ("data.truncation=left", "data.truncation: it has no effect: only verl's own dataset"),
        ("actor_rollout_ref.model.lora.freeze_vision_model=false", "it has no effect: only the Megatron engines"),
    ],
)
def test_what_would_fail_after_the_workers_have_started_is_refused(write_mix, tmp_path, mistake, complaint):
    write_mix(FIVE)
    recipe = write_mix("mix: mix.yaml\nactor_rollout_ref: {actor: {optim: {lr: 1e-6}}}", "recipe.yaml")
    config = prepare("grpo", recipe, device="cpu").config
    assert config["actor_rollout_ref"]["actor"]["optim"]["lr"] == 1e-6  # which PyYAML would take for a text
    with pytest.raises(RecipeError, match=complaint):
        prepare("grpo", recipe, [mistake.replace("FOLDER", str(tmp_path))], device="cpu")


def test_the_folder_of_a_checkpoint_names_the_model_in_it(write_mix, tmp_path):
    write_mix(FIVE)
    recipe = write_mix("mix: mix.yaml", "recipe.yaml")
    model = tmp_path / "global_step_40" / "actor" / "huggingface"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match=f"has no config.json. Did you mean {model}"):
        prepare("grpo", recipe, [f"actor_rollout_ref.model.path={tmp_path}/global_step_40"], device="cpu")
    with pytest.raises(ModelError, match=f"Did you mean {model}"):
        load_processor(str(tmp_path / "global_step_40"))


@pytest.mark.parametrize(("nodes", "refused"), [(4, False), (2, True)])
def test_a_checkpoint_of_another_number_of_processes_is_refused_with_what_is_possible(
    write_mix, tmp_path, nodes, refused
):
    write_mix(FIVE)
    recipe = write_mix(
        f"mix: mix.yaml\ntrainer: {{n_gpus_per_node: 8, default_local_dir: {tmp_path}/run}}", "recipe.yaml"
    )
    shards = tmp_path / "run" / "global_step_20" / "actor"
    shards.mkdir(parents=True)
    (shards / "model_world_size_32_rank_0.pt").touch()
    overrides = [
        f"trainer.nnodes={nodes}",
        f"trainer.default_local_dir={tmp_path}/run",
        "trainer.resume_mode=resume_path",
    ]
    overrides += [f"trainer.resume_from_path={shards.parent}"]
    if not refused:
        prepare("grpo", recipe, overrides, device="cuda")
        return
    merge = rf"model\.path={shards}/huggingface \(python -m .* merge --backend fsdp --local_dir {shards}"
    with pytest.raises(RecipeError, match=rf"n_gpus_per_node = 16, but .*global_step_20 was saved by 32 .*{merge}"):
        prepare("grpo", recipe, overrides, device="cuda")


def test_the_vision_tower_is_frozen_only_where_frozen_and_trained_parameters_are_apart(write_mix):
    write_mix(FIVE)
    recipe = write_mix("mix: mix.yaml\nactor_rollout_ref: {actor: {freeze_vision_tower: true}}", "recipe.yaml")
    libraries = prepare("grpo", recipe, device="cpu").config["actor_rollout_ref"]["model"]["external_lib"]
    assert libraries == ["ssrl_core.verl.workers", "ssrl_core.verl.frozen"]
    with pytest.raises(RecipeError, match=r"needs actor\.strategy = fsdp2, not 'fsdp'"):
        prepare("grpo", recipe, device="cuda")


def test_a_run_does_not_write_over_its_mix(write_mix, tmp_path):
    write_mix(FIVE)
    recipe = write_mix(f"mix: mix.yaml\ntrainer: {{default_local_dir: {tmp_path}}}", "recipe.yaml")
    with pytest.raises(RecipeError, match="would overwrite"):
        prepare("grpo", recipe, device="cpu")


def test_where_flash_attention_is_not_installed_verl_is_told_so(write_mix):
    write_mix(FIVE)
    recipe = write_mix("mix: mix.yaml", "recipe.yaml")
    for stage in ("sft", "grpo"):
        config = prepare(stage, recipe, device="cuda").config
        model = config["model"] if stage == "sft" else config["actor_rollout_ref"]["model"]
        plain = importlib.util.find_spec("flash_attn") is None
        assert model["use_remove_padding"] is not plain
        assert model["override_config"].get("attn_implementation") == ("sdpa" if plain else None)


def test_an_override_holds_any_path():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    path = Path("/a b/wörk, (x) [y]/{z}/#1&2=3/'q'")
    (parsed,) = OverridesParser.create().parse_overrides([override("hydra.run.dir", path)])
    assert (parsed.key_or_group, parsed.value()) == ("hydra.run.dir", str(path))


def without_verl(launch, program=""):
    """The launch with a Python program in the place of verl."""
    return replace(launch, argv=(sys.executable, "-c", program))


@pytest.fixture
def resumable(install_toy, pictures, write_mix, tmp_path):
    """A run that has saved a checkpoint, as a function that prepares it once more with further overrides."""
    mix = f"source: 'folder:{pictures}'\nsize: 64\nsamples: 100\ntasks: {{toy: }}\n"
    install_toy()
    recipe = write_mix("mix: mix.yaml", "recipe.yaml")
    write_mix(mix)

    def again(*overrides, stage="grpo", text=mix, name="mix.yaml"):
        open_source.cache_clear()  # as in a new process
        write_mix(text, name)
        folder = override("trainer.default_local_dir", tmp_path / "run")
        return prepare(stage, recipe, [folder, f"mix={tmp_path / name}", *overrides], device="cpu")

    run(without_verl(again()), on_step=print)
    (tmp_path / "run" / CHECKPOINTED).write_text("5")
    again.mix, again.folder = mix, tmp_path / "run"
    return again


def test_checkpoints_of_another_run_are_not_continued(resumable, install_toy, pictures):
    def refused(difference, *overrides, **changes):
        with pytest.raises(RecipeError, match=r"(?s)holds another training run.*trainer\.resume_mode=disable") as error:
            resumable(*overrides, **changes)
        assert difference in str(error.value)

    refused("config.algorithm.gamma: 1.0 -> 0.5", "algorithm.gamma=0.5")
    refused("config.", stage="sft")
    refused("mix.size: 64 -> 80", text=resumable.mix.replace("size: 64", "size: 80"))
    before = (pictures / "00 é.png").read_bytes()
    Image.new("RGB", (96, 72)).save(pictures / "00 é.png")
    refused(".digest: '")
    (pictures / "00 é.png").write_bytes(before)
    sys.modules.pop("ssrl_plugin_toy")
    install_toy(version="0.2")
    refused("versions.ssrl-plugin-toy: '0.1' -> '0.2'")


def test_a_run_is_continued_after_changes_that_do_not_matter(resumable):
    resumable("trainer.total_training_steps=99", "trainer.save_freq=3")
    resumable(name="renamed.yaml")
    resumed = resumable(text=resumable.mix + "# a comment\n")
    run(without_verl(resumed), on_step=print)
    assert (resumable.folder / CHECKPOINTED).read_text() == "5"
    assert (resumable.folder / "mix.yaml").read_text() == resumable.mix + "# a comment\n"
    assert (resumable.folder / "mix-2.yaml").read_text() == resumable.mix


@pytest.mark.parametrize(
    "mode", ["trainer.resume_mode=disable", "trainer.resume_mode=resume_path trainer.resume_from_path=global_step_1"]
)
def test_a_run_that_does_not_continue_the_last_checkpoint_leaves_none_that_a_later_run_would_continue(resumable, mode):
    run(without_verl(resumable("algorithm.gamma=0.5", *mode.split())), on_step=print)  # ends before it saves
    assert not (resumable.folder / CHECKPOINTED).exists()
    plan = json.loads((resumable.folder / "plan.json").read_text())
    assert plan["config"]["algorithm"]["gamma"] == 0.5
    resumable()


def test_checkpoints_without_a_plan_are_not_continued(resumable):
    (resumable.folder / "plan.json").unlink()
    with pytest.raises(RecipeError, match=r"has results of .* training run, but no plan\.json"):
        resumable()
    resumable("trainer.resume_mode=disable")


def test_a_folder_in_which_another_process_trains_is_refused(resumable):
    program = (
        "import sys, pathlib\n"
        "from ssrl_core.verl.checks import folder_of\n"
        "with folder_of(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(resumable.folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        launch = without_verl(resumable(), "raise SystemExit(7)")
        with pytest.raises(RecipeError, match=rf"process {other.pid} on .* is working on the training run in"):
            run(launch, on_step=print)
        other.kill()
    assert run(launch, on_step=print).code == 7


def test_a_plugin_whose_params_or_verifier_cannot_work_is_found_before_the_run(write_mix, probe, monkeypatch):
    import ssrl_plugin_probe

    write_mix('source: "blank:"\nsize: 64\ntasks: {probe: }')
    recipe = write_mix("mix: mix.yaml", "recipe.yaml")
    prepare("grpo", recipe, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(ssrl_plugin_probe, "match_choice", lambda answer, truth: 0.5)
        with pytest.raises(PluginFailed, match=r"gives the truth '.' a score of 0\.5"):
            prepare("grpo", recipe, device="cpu")
    monkeypatch.setattr(ssrl_plugin_probe, "Sample", lambda images, truth: Sample(images, truth, {"n": {1, 2}}))
    with pytest.raises(PluginFailed, match="not plain JSON"):
        prepare("grpo", recipe, device="cpu")


def test_a_run_reports_verls_metrics_its_exit_code_and_the_prompts_that_it_lost(tmp_path):
    (tmp_path / "mix.yaml").write_text(FIVE)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").write_text("Error in _run_prompt for uid=of-an-earlier-run\n")
    program = (
        "import json, os\n"
        "with open(os.environ['VERL_FILE_LOGGER_PATH'], 'w') as file:\n"
        "    for step in (1, 2): file.write(json.dumps({'step': step, 'data': {'x': step}}) + '\\n')\n"
        "for uid in (7, 7, 8): print(f'ERROR 12:00 Error in _run_prompt for uid={uid}')\n"
        "raise SystemExit(3)"
    )
    config = {"trainer": {"total_training_steps": 2, "resume_mode": "auto", "save_on_signal": None, "time_limit": None}}
    env = {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")}
    steps = []
    finished = run(
        Launch((sys.executable, "-c", program), env, config, tmp_path / "mix.yaml", {}, folder),
        on_step=lambda step, metrics: steps.append((step, metrics)),
    )
    assert steps == [(1, {"x": 1}), (2, {"x": 2})]
    assert (finished.code, finished.lost_prompts) == (3, 2)
    assert "uid=of-an-earlier-run" in (folder / "log.txt").read_text()
    assert (folder / "mix.yaml").read_text() == FIVE


def test_a_run_is_started_again_if_ray_does_not_start_in_time(tmp_path):
    (tmp_path / "mix.yaml").write_text(FIVE)
    program = (
        "from pathlib import Path\n"
        "starts = Path('starts')\n"
        "starts.write_text((starts.read_text() if starts.exists() else '') + 'x')\n"
        "if len(starts.read_text()) < 3:\n"
        "    raise Exception('The current node timed out during startup. This could happen')"
    )
    code = f"import os; os.chdir({str(tmp_path)!r})\n{program}"
    env = {"VERL_FILE_LOGGER_PATH": str(tmp_path / "run" / "metrics.jsonl")}
    config = {"trainer": {"total_training_steps": 2, "resume_mode": "auto", "save_on_signal": None, "time_limit": None}}
    launch = Launch((sys.executable, "-c", code), env, config, tmp_path / "mix.yaml", {}, tmp_path / "run")
    assert run(launch, on_step=print).code == 0
    assert (tmp_path / "starts").read_text() == "xxx"
    (tmp_path / "starts").unlink()
    never = code.replace("< 3", "< 9")
    assert run(replace(launch, argv=(sys.executable, "-c", never)), on_step=print).code == 1
    assert (tmp_path / "starts").read_text() == "xxx"
