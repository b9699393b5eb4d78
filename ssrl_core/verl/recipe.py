"""From a recipe to verl's configuration.

A recipe is a YAML file with verl's own keys, the key ``mix`` (path of a mix file, relative to the recipe) and, if it
includes other recipes, the key ``include`` (see ``ssrl_core.mix.include``). The configuration is made of layers, each
of which overrides those before it: verl's defaults, our defaults for the stage, our defaults for the machine, the
recipe, the command line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError, did_you_mean
from ..mix.include import Composed, Keys, Kind, dotted, merged
from ..mix.include import compose as compose_files
from ..yamlfile import dump
from . import vllm_cpu
from .ignored import no_effect

Stage = Literal["sft", "grpo"]

VALIDATION = "#validation"
"""Suffix that selects the validation split of a mix file in verl's ``data.val_files``."""

SAMPLER = {"path": "pkg://ssrl_core.verl.sampler", "name": "PromptReplayBuffer"}
_PRIMARY = {"sft": "sft_trainer_engine", "grpo": "ppo_trainer"}  # names of verl's default configurations
# verl passes these sections on unread, so they may have keys that its defaults do not list. So may empty sections.
_OPEN = re.compile(r"(^|\.)(ray_init|engine_kwargs)$")
# Settings that verl or this package reads, but verl's defaults do not list.
_UNLISTED = re.compile(
    r"^data\.completion$|^trainer\.(save_on_signal|time_limit)$|(^engine|\.fsdp_config)\.mixed_precision$|^reward\.custom_reward_function\.reward_kwargs$"
)


def read_recipe(path: Path) -> Composed:
    """A recipe with the recipes that it includes; its ``mix`` is an absolute path.

    Raises:
        RecipeError: a file cannot be read, includes itself, or names no mix.
    """
    recipe = compose_files(path, _RECIPE)
    if "mix" not in recipe.content:
        raise RecipeError(f"{path}: the key 'mix' is missing; it names the mix file, relative to the recipe")
    return recipe


def _with_absolute_mix(content: dict[str, Any], base: Path) -> dict[str, Any]:
    if "base" in content:
        raise RecipeError(f"{base}: a recipe includes another one with 'include', not 'base'")
    if "mix" in content and not isinstance(content["mix"], str):
        raise RecipeError(f"{base}: mix: {content['mix']!r} is not the path of a file")
    return content | ({"mix": str((base / content["mix"]).resolve())} if "mix" in content else {})


_RECIPE = Kind("recipe", RecipeError, _with_absolute_mix, lambda keys: True)


def compose(
    stage: Stage, recipe: Composed, overrides: Sequence[str], *, mix: Path | None = None, device: str
) -> dict[str, Any]:
    """verl's whole configuration, resolved, with the folder of the run as an absolute path.

    Args:
        stage: ``"sft"`` or ``"grpo"``.
        recipe: from ``read_recipe``.
        overrides: in Hydra's grammar.
        mix: path of the mix file; that of the recipe if None.
        device: ``"cuda"`` or ``"cpu"``.

    Raises:
        RecipeError: a key that verl does not have, an override with a syntax error, an invalid number, or batch sizes
            that do not divide each other.
    """
    content = {key: value for key, value in recipe.content.items() if key != "mix"}
    machine = _on_cpu(stage) if device == "cpu" else {} if importlib.util.find_spec("flash_attn") else _plain(stage)
    layers = (_defaults(stage, str(mix or recipe.content["mix"]), name=recipe.path.stem), machine, content)
    config: dict[str, Any] = _layered(stage, layers, overrides, recipe)
    where = str(recipe.path)
    if "cpu" in (device, config["trainer"]["device"]) and config["trainer"]["device"] != device:
        raise RecipeError(
            f"{where}: trainer.device = {config['trainer']['device']}, but the configuration is made for {device}, and "
            "this setting changes neither rollouts nor precision. Remove it. To check a recipe for machines with GPUs, "
            "use --device cuda"
        )
    _check_numbers(stage, config, where=where)
    if stage == "grpo":
        _check_batches(config, where=where)
        _leave_filtering_to_verl(config)
        _freeze_vision_tower(config, where=where)
    config["trainer"]["default_local_dir"] = str(Path(config["trainer"]["default_local_dir"]).resolve())
    return config


def override(key: str, value: object) -> str:
    """An override in Hydra's grammar that sets a key to a text, such as a path. The text may have any characters."""
    return f"{key}={json.dumps(str(value), ensure_ascii=False)}"


def _defaults(stage: Stage, mix: str, *, name: str) -> dict[str, Any]:
    trainer = {
        "project_name": "ssrl",
        "experiment_name": name,
        "default_local_dir": f"runs/{name}",
        "logger": ["console", "file", "tensorboard"],
        "save_on_signal": None,  # seconds for a checkpoint after a signal; read by ``ssrl_core.verl.processes``
        "time_limit": None,
    }
    state = ["model", "optimizer", "extra"]
    if stage == "sft":
        return {
            "data": {
                "train_files": mix,
                "val_files": f"{mix}{VALIDATION}",
                "custom_cls": {"path": "pkg://ssrl_core.verl.dataset", "name": "MixSFTDataset"},
                "completion": None,
            },
            "model": {"external_lib": "ssrl_core.verl.workers"},
            "checkpoint": {"save_contents": [*state, "hf_model"], "load_contents": state},
            "trainer": trainer,
        }
    return {
        "algorithm": {"adv_estimator": "grpo"},
        "data": {
            "train_files": mix,
            "val_files": f"{mix}{VALIDATION}",
            "custom_cls": {"path": "pkg://ssrl_core.verl.dataset", "name": "MixDataset"},
            "shuffle": False,  # a mix is random already, and each of its batches has the proportions of the tasks
        },
        "reward": {"custom_reward_function": {"path": "pkg://ssrl_core.reward", "name": "compute_score"}},
        "actor_rollout_ref": {
            "model": {"external_lib": "ssrl_core.verl.workers"},
            "actor": {"checkpoint": {"save_contents": [*state, "hf_model"], "load_contents": state}},
            "rollout": {
                "name": "vllm",
                "calculate_log_probs": True,
                "agent": {"default_agent_loop": "ssrl_single_turn"},
                "engine_kwargs": {"vllm": {"worker_extension_cls": "ssrl_core.verl.weights.Receiver"}},
            },
        },
        # verl saves the final model only if save_freq is positive. Its default of -1 would leave no model.
        "trainer": {
            **trainer,
            "save_freq": 20,
            "max_actor_ckpt_to_keep": 2,
            "v1": {"sampler": {"custom_sampler": dict(SAMPLER)}},
        },
    }


def _on_cpu(stage: Stage) -> dict[str, Any]:
    """Settings for a machine without an accelerator; see ``platform``, ``workers`` and ``rollout``."""
    model = {
        "use_remove_padding": False,
        "enable_gradient_checkpointing": False,
        "override_config": {"attn_implementation": "sdpa"},
    }
    engine = {"strategy": "fsdp2", "use_torch_compile": False, "mixed_precision": {"param_dtype": "fp32"}}
    trainer = {"device": "cpu", "n_gpus_per_node": 1, "nnodes": 1}
    workers = min(2, os.cpu_count() or 1)  # agent loops render and process images, mostly under Python's lock
    if stage == "sft":
        return {
            "data": {"num_workers": 1, "use_dynamic_bsz": False},
            "model": model,
            "engine": engine,
            "trainer": trainer,
        }
    return {
        "data": {"dataloader_num_workers": 1},  # prepares the next rows during a step
        "actor_rollout_ref": {
            "model": model,
            "actor": {"strategy": "fsdp2", "fsdp_config": engine},
            "ref": {"strategy": "fsdp2", "fsdp_config": engine},
            "rollout": {
                **vllm_cpu.SETTINGS,  # without effect unless the recipe says `name: vllm`
                "name": "transformers",
                "tensor_model_parallel_size": 1,
                "agent": {"num_workers": workers},
            },
        },
        "reward": {"num_workers": 1},
        # With verl's default of 8 storage units, a run on few logical CPUs waits forever for resources.
        "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
        # "local": Ray would join a cluster that is running on the machine, which refuses these numbers.
        "ray_kwargs": {"ray_init": {"address": "local", "num_cpus": 16, "num_gpus": 1, "include_dashboard": False}},
        "trainer": trainer,
    }


def _plain(stage: Stage) -> dict[str, Any]:
    """Settings for a machine without flash-attn, which verl's defaults require."""
    model = {"use_remove_padding": False, "override_config": {"attn_implementation": "sdpa"}}
    return {"model": model} if stage == "sft" else {"actor_rollout_ref": {"model": model}}


def _layered(stage: Stage, layers: Sequence[Mapping[str, Any]], overrides: Sequence[str], recipe: Composed) -> Any:
    """verl's defaults with the layers and the overrides on top, resolved. The last layer is the recipe's."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("verl is not installed: pip install 'ssrl-core[train]'")
    verl_configs = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    name = _PRIMARY[stage]
    with tempfile.TemporaryDirectory() as scratch:
        GlobalHydra.instance().clear()
        try:
            with hydra.initialize_config_dir(str(verl_configs), version_base=None):
                defaults = hydra.compose(name)
            known: Any = OmegaConf.to_container(defaults, resolve=False)
            _check_keys(layers[-1], known, recipe)
            primary: dict[str, Any] = {
                "defaults": [name, "_self_"],
                "hydra": {"searchpath": [f"file://{verl_configs}"]},
            }
            for layer in layers:
                primary = merged(primary, layer, _RECIPE.merges)
            (Path(scratch) / "ssrl.yaml").write_text(dump(primary), encoding="utf-8")
            with hydra.initialize_config_dir(scratch, version_base=None):
                composed = hydra.compose("ssrl", overrides=list(overrides))
            config: Any = OmegaConf.to_container(composed, resolve=True)
            for key, reason in no_effect(stage, config):
                if OmegaConf.select(composed, key) != OmegaConf.select(defaults, key):
                    raise RecipeError(f"{recipe.where(*key.split('.'))}: it has no effect: {reason}")
            return config
        except (HydraException, OmegaConfBaseException) as err:
            reason = "\n  ".join(line for line in str(err).splitlines() if line.strip())
            raise RecipeError(f"{recipe.path}, with overrides {list(overrides)}:\n  {reason}") from err


def _leave_filtering_to_verl(config: Mapping[str, Any]) -> None:
    """Remove our replay buffer, in place, if verl filters groups or trains asynchronously: it supports neither."""
    v1 = config["trainer"]["v1"]
    filters = config["algorithm"]["filter_groups"]["enable"] or v1["sampler"]["sync_refill_failed_groups"]
    if v1["sampler"]["custom_sampler"] == SAMPLER and (filters or v1["trainer_mode"] != "sync"):
        v1["sampler"]["custom_sampler"] = dict.fromkeys(SAMPLER)


def _freeze_vision_tower(config: Mapping[str, Any], *, where: str) -> None:
    """Implement ``freeze_vision_tower``, which verl ignores, in place: the workers import ``frozen``."""
    policy = config["actor_rollout_ref"]
    actor, model = policy["actor"], policy["model"]
    if not actor["freeze_vision_tower"]:
        return
    if actor["strategy"] != "fsdp2":
        raise RecipeError(
            f"{where}: actor_rollout_ref.actor.freeze_vision_tower = true needs actor.strategy = fsdp2, not "
            f"{actor['strategy']!r}: other strategies mix frozen and trained parameters in one tensor"
        )
    libraries = model["external_lib"]
    model["external_lib"] = [libraries] if isinstance(libraries, str) else list(libraries or ())
    model["external_lib"].append("ssrl_core.verl.frozen")


_COUNTS = ("trainer.n_gpus_per_node", "trainer.nnodes", "trainer.total_epochs", "data.train_batch_size")
_COUNTS_OF = {
    "sft": (*_COUNTS, "data.max_length"),
    "grpo": (
        *_COUNTS,
        *("data.max_prompt_length", "data.max_response_length"),
        *("actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.ppo_mini_batch_size"),
    ),
}
_RATE = {"sft": "optim.lr", "grpo": "actor_rollout_ref.actor.optim.lr"}


def _check_numbers(stage: Stage, config: Mapping[str, Any], *, where: str) -> None:
    """Raise RecipeError for an invalid count or learning rate. verl would fail only after its workers have started."""

    def value(key: str) -> Any:
        found: Any = config
        for part in key.split("."):
            found = found[part]
        return found

    steps = "trainer.total_training_steps"
    for key in (*_COUNTS_OF[stage], *([] if value(steps) is None else [steps])):
        if not isinstance(value(key), int) or value(key) < 1:
            raise RecipeError(f"{where}: {key} = {value(key)!r}: must be a whole number of at least 1")
    for key in ("trainer.save_on_signal", "trainer.time_limit"):
        if value(key) is not None and (not isinstance(value(key), int | float) or not value(key) > 0):
            raise RecipeError(f"{where}: {key} = {value(key)!r}: must be a number of seconds above 0, or null")
    if not isinstance(rate := value(_RATE[stage]), int | float) or not rate >= 0:
        raise RecipeError(f"{where}: {_RATE[stage]} = {rate!r}: must be a number of at least 0")


def _check_batches(config: Mapping[str, Any], *, where: str) -> None:
    """Raise RecipeError for batch sizes that do not divide each other. verl would fail only in the first step."""
    policy, trainer = config["actor_rollout_ref"], config["trainer"]
    actor, rollout = policy["actor"], policy["rollout"]
    if actor["use_dynamic_bsz"] is not False:
        return
    prompts, mini, n = config["data"]["train_batch_size"], actor["ppo_mini_batch_size"], rollout["n"]
    workers = trainer["n_gpus_per_node"] * trainer["nnodes"] / (actor.get("ulysses_sequence_parallel_size") or 1)
    log_prob_micro, actor_micro = rollout["log_prob_micro_batch_size_per_gpu"], actor["ppo_micro_batch_size_per_gpu"]
    for key, divisor, what, total in (
        ("actor.ppo_mini_batch_size", mini, f"the {prompts} prompts of data.train_batch_size", prompts),
        ("rollout.log_prob_micro_batch_size_per_gpu", log_prob_micro, "a worker's rollouts", prompts * n / workers),
        ("actor.ppo_micro_batch_size_per_gpu", actor_micro, "a worker's rollouts of a mini-batch", mini * n / workers),
    ):
        if divisor is None:
            continue
        if not isinstance(divisor, int) or divisor < 1 or total % divisor:
            raise RecipeError(
                f"{where}: actor_rollout_ref.{key} = {divisor!r} does not divide {what}: {total:g} "
                f"(data.train_batch_size = {prompts}, ppo_mini_batch_size = {mini}, rollout.n = {n}, "
                f"{workers:g} data-parallel worker(s))"
            )


def _check_keys(content: Mapping[str, Any], known: Mapping[str, Any], recipe: Composed, keys: Keys = ()) -> None:
    """Raise RecipeError for what cannot be merged into verl's configuration: unknown keys, values for sections."""
    for key, value in content.items():
        here = (*keys, str(key))
        path = dotted(here)
        if _UNLISTED.search(path):
            continue
        if key not in known:
            raise RecipeError(
                f"{recipe.where(*here)}: verl has no such setting.{did_you_mean(str(key), map(str, known))} "
                f"Known under {dotted(keys) or 'the top level'}: {', '.join(map(str, known))}"
            )
        section = isinstance(known[key], Mapping) and bool(known[key])
        if section and not isinstance(value, Mapping):
            raise RecipeError(
                f"{recipe.where(*here)}: must be a section of settings, not {value!r}. Fill it in or remove it"
            )
        if not section and isinstance(value, Mapping) and known[key] not in (None, {}):
            raise RecipeError(f"{recipe.where(*here)}: must be a value such as {known[key]!r}, not a mapping")
        if isinstance(known[key], bool | int | float) and isinstance(value, str) and "${" not in value:
            raise RecipeError(
                f"{recipe.where(*here)}: {value!r} is text, but verl's default is {known[key]!r}: remove the quotes"
            )
        if section and not _OPEN.search(path):
            _check_keys(value, known[key], recipe, here)
