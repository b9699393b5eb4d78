"""The recipes of examples/recipes: composed, checked by verl, and their table of memory."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from ssrl_core.errors import RecipeError
from ssrl_core.verl import memory
from ssrl_core.verl.ignored import LEGACY, NOWHERE, OF_DATASET, OF_MEGATRON
from ssrl_core.verl.recipe import compose, read_recipe

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
LEAVES = sorted(path.stem for path in FOLDER.glob("qwen*.yaml"))


def load(name: str) -> ModuleType:
    """A script of the folder as a module."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(f"recipes_{name}", FOLDER / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(FOLDER))


def composed(name: str) -> dict:
    recipe = read_recipe(FOLDER / f"{name}.yaml")
    assert recipe.content["mix"] == str(FOLDER.parent / "paper" / "mix.yaml")
    return compose("sft" if "-sft" in name else "grpo", recipe, [], device="cuda")


def test_a_wrong_key_is_reported_with_the_file_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("mix: mix.yaml\ntrainer: {total_epochs: 2, sav_freq: 3}")
    (tmp_path / "own.yaml").write_text("include: base.yaml\ntrainer: {save_freq: 5}")
    with pytest.raises(RecipeError, match=r"base\.yaml: trainer\.sav_freq: .* Did you mean 'save_freq'"):
        compose("grpo", read_recipe(tmp_path / "own.yaml"), [], device="cpu")


def readers(name: str, code: dict[str, str]) -> set[str]:
    """The files of verl that use a name other than to declare it. Classes of configurations only declare."""
    use = re.compile(rf"^(?!\s*{name}\s*:).*?(\.{name}\b|[\"']{name}[\"']|\b{name}=)", re.MULTILINE)
    return {path for path, text in code.items() if name in text and use.search(re.sub(r"#.*", "", text))}


def test_settings_that_are_refused_as_without_effect_are_read_by_no_code_of_verl() -> None:
    spec = importlib.util.find_spec("verl")
    assert spec and spec.origin
    root = Path(spec.origin).parent
    code = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    assert len(code) > 300
    v1 = {path: text for path, text in code.items() if path.startswith("trainer/ppo/v1/")}
    others = {path: text for path, text in code.items() if path not in v1 and not path.startswith("workers/config/")}
    assert readers("clip_grad", others) and readers("save_freq", v1)  # the search finds what is read
    for key in {**NOWHERE["grpo"], **NOWHERE["sft"]}:
        name = key.rpartition(".")[2]
        if name in ("balance_batch", "use_torch_compile", "grad_clip"):  # read as another key, or by the legacy trainer
            continue
        assert not readers(name, others | v1), key
    assert "self.clip_grad" in code["workers/config/optimizer.py"]
    assert "optimizer_config.clip_grad" in code["workers/engine/fsdp/transformer_impl.py"]
    assert readers("use_torch_compile", others) <= {
        path for path in others if path.startswith("workers/engine/") or "torchtitan" in path
    }
    for key in LEGACY:
        assert not readers(key.rpartition(".")[2], v1), key
    for name in OF_DATASET:
        found = {path for path in readers(name, v1)}
        assert not found, (name, found)
    for name in OF_MEGATRON:
        assert not readers(name, {path: text for path, text in code.items() if "fsdp" in path}), name


OTHERS = sorted(
    path for path in FOLDER.parent.glob("*/*.yaml") if path.stem in ("sft", "grpo") and path.parent != FOLDER
)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_setting_of_the_other_recipes_has_an_effect(path: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"include: {path}\nmix: mix.yaml")
    compose(path.stem, read_recipe(recipe), [], device="cuda" if path.parent.name == "gpu" else "cpu")  # or an error


def test_there_is_a_recipe_for_every_model_stage_and_machine() -> None:
    models = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b")
    kinds = ("grpo", "grpo-1gpu", "grpo-nodes", "sft", "sft-1gpu")
    assert sorted(f"{model}-{kind}" for model in models for kind in kinds) == LEAVES


@pytest.mark.parametrize("name", [name for name in LEAVES if "-grpo" in name])
def test_a_grpo_recipe_passes_verls_checks_and_is_the_papers(name: str) -> None:
    content = composed(name)
    config = OmegaConf.create(content)
    assert need_reference_policy(config) and not need_critic(config)
    validate_config(config=config, use_reference_policy=True, use_critic=False)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    policy, data, trainer = (content[key] for key in ("actor_rollout_ref", "data", "trainer"))
    actor, rollout = policy["actor"], policy["rollout"]
    assert (rollout["n"], rollout["temperature"], rollout["name"]) == (5, 1.0, "vllm")
    assert (actor["use_kl_loss"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (True, 0.01, "low_var_kl")
    assert (data["max_prompt_length"], data["max_response_length"]) == (1536, 2048)
    assert rollout["max_model_len"] == 1536 + 2048
    assert (
        actor["use_dynamic_bsz"] and rollout["log_prob_use_dynamic_bsz"] and policy["ref"]["log_prob_use_dynamic_bsz"]
    )
    packed = actor["ppo_max_token_len_per_gpu"]
    assert packed == rollout["log_prob_max_token_len_per_gpu"] == policy["ref"]["log_prob_max_token_len_per_gpu"]
    assert packed >= rollout["max_model_len"]
    assert (trainer["save_freq"], trainer["max_actor_ckpt_to_keep"], actor["freeze_vision_tower"]) == (20, 2, False)
    gpus = {"grpo": (1, 8), "grpo-1gpu": (1, 1), "grpo-nodes": (4, 8)}[name[name.index("grpo") :]]
    assert (trainer["nnodes"], trainer["n_gpus_per_node"]) == gpus
    if gpus == (1, 1):
        assert policy["model"]["lora_rank"] == 128
        assert policy["model"]["lora"]["merge"]  # vLLM has no adapters for vision towers
    else:
        scale = 2 if gpus == (4, 8) else 1  # of the paper's batch
        assert (data["train_batch_size"], actor["ppo_mini_batch_size"]) == (256 * scale, 128 * scale)
        assert (trainer["total_training_steps"], actor["optim"]["lr"]) == (360 // scale, 1e-6)
        assert actor["fsdp_config"]["fsdp_size"] == (8 if gpus == (4, 8) else -1)
    assert trainer["rollout_data_dir"] == f"runs/{name}/rollouts"


@pytest.mark.parametrize("name", [name for name in LEAVES if "-sft" in name])
def test_an_sft_recipe_is_the_papers_and_fits_verls_own_classes(name: str) -> None:
    content = composed(name)
    config = OmegaConf.create(content)
    for part in ("engine", "optim", "checkpoint"):
        omega_conf_to_dataclass(config[part])
    optim, model = content["optim"], content["model"]
    assert (optim["lr"], optim["lr_scheduler_type"], optim["lr_warmup_steps_ratio"]) == (1e-5, "cosine", 0.1)
    assert (model["lora_rank"], model["target_modules"]) == (128, "all-linear")
    assert content["trainer"]["total_training_steps"] == content["trainer"]["save_freq"] == 75
    assert re.fullmatch(r"Qwen/Qwen[\d.]+-VL-\dB-Instruct", model["path"])


def test_the_memory_table_of_the_readme_is_what_the_script_prints() -> None:
    assert load("memory").table(FOLDER) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_twice_the_gpus_halve_the_memory_of_sharded_parts() -> None:
    content = composed("qwen2.5-vl-7b-grpo")
    size = memory.model("Qwen/Qwen2.5-VL-7B-Instruct")
    assert size.parameters == 8_292_166_656  # as published
    eight = memory.need("grpo", content, size)
    content["trainer"]["nnodes"] = 2
    sixteen = memory.need("grpo", content, size)
    content["actor_rollout_ref"]["actor"]["fsdp_config"]["fsdp_size"] = 8
    assert memory.need("grpo", content, size).weights == eight.weights  # each node holds a copy
    for part in ("weights", "gradients", "adam", "resting"):
        assert getattr(eight, part) == pytest.approx(2 * getattr(sixteen, part))
    assert eight.weights * 8 == pytest.approx(4 * 8_292_166_656 / 2**30)
    assert (eight.vllm_weights, eight.activations) == (sixteen.vllm_weights, sixteen.activations)


def test_a_merged_adapter_gives_the_outputs_of_model_and_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=8, target_modules=["0", "2"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    weights = load("merge").merged(adapted.state_dict(), scale=8 / 2)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    plain.load_state_dict(weights)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(plain(inputs), adapted(inputs))
