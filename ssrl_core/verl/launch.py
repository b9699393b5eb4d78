"""A recipe -> verl's own command line, checked before anything starts.

A recipe is YAML in verl's own terms plus the key ``mix`` (a path relative to the recipe) and, optionally, ``base``
(another recipe that it extends). Later layers win: verl's defaults, ours for the stage, ours for a machine without an
accelerator, the recipe, the command line. The composed configuration is written into the run's folder and handed to
verl's unmodified entry point, so ``command.txt`` in that folder repeats the run without this module.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import RecipeError, did_you_mean
from ..mix import SplitName, load_mix

Stage = Literal["sft", "grpo"]

_ENTRY = {"sft": ("sft_trainer_engine", "verl.trainer.sft_trainer"), "grpo": ("ppo_trainer", "verl.trainer.main_ppo")}
_OWN_KEYS = ("mix", "base")
# verl passes these on whole, so keys that its defaults do not list are legitimate there.
_OPEN = re.compile(r"(^|\.)(ray_init|override_config|mixed_precision|apply_chat_template_kwargs|mm_processor_kwargs)$")
# Settings that verl reads, or that we read, though verl's default configuration does not list them.
_UNLISTED = re.compile(r"^data\.completion$|(^engine|\.fsdp_config)\.mixed_precision$")


@dataclass(frozen=True)
class Launch:
    """A checked run that is ready to start.

    Attributes:
        argv: verl's command line.
        env: what is set in its environment besides the current one.
        folder: of the run: ``config.yaml``, ``command.txt``, ``log.txt``, ``metrics.jsonl`` and checkpoints.
        steps: number of training steps, where it is known beforehand.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    steps: int | None

    def command(self) -> str:
        """The command as one would type it."""
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.env.items()), shlex.join(self.argv)])


def prepare(stage: Stage, recipe: str | Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Launch:
    """Check a recipe and write the composed configuration into the run's folder.

    Args:
        stage: ``"sft"`` for the cold start, ``"grpo"`` for reinforcement learning.
        recipe: a YAML file.
        overrides: in Hydra's grammar, e.g. ``trainer.total_training_steps=10``; ``mix=FILE`` takes another mix,
            relative to the working directory.
        device: ``"cuda"`` or ``"cpu"``; what torch finds where absent.

    Raises:
        RecipeError: the recipe or an override names a key that verl does not have, or lacks the mix.
        MixError, PluginError, SourceError: the mix cannot be used; found out by drawing a sample of every task.
    """
    _require_verl()
    content = read_recipe(Path(recipe))
    mix_path = content.pop("mix")
    for override in [given for given in overrides if given.startswith("mix=")]:
        mix_path = str(Path(override.removeprefix("mix=")).resolve())
    overrides = [given for given in overrides if not given.startswith("mix=")]
    preflight(mix_path)
    device = device or _device()
    layer = _merge(_defaults(stage, mix_path, name=Path(recipe).stem), _on_cpu(stage) if device == "cpu" else {})
    config = _compose(stage, _merge(layer, content), overrides, where=str(recipe))

    if stage == "grpo":
        _check_batches(config, where=str(recipe))

    folder = Path(config["trainer"]["default_local_dir"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    entry = ["-m", _ENTRY[stage][1], f"--config-path={folder}", "--config-name=config"]
    entry += [f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    if stage == "sft":
        processes = config["trainer"]["n_gpus_per_node"]
        entry = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *entry]
    env = {"VERL_FILE_LOGGER_PATH": str(_fresh(folder / "metrics.jsonl"))}
    env["TENSORBOARD_DIR"] = str(folder / "tensorboard")
    env |= {"HYDRA_FULL_ERROR": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_DEDUP_LOGS": "0"}
    env["RAY_USAGE_STATS_ENABLED"] = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    if device == "cpu":
        env["VERL_USE_EXTERNAL_MODULES"] = "ssrl_core.verl.platform"
        # Small images are processed several times faster without threads, and verl runs a process for everything.
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        env["RAY_worker_niceness"] = "0"  # Ray starts workers at nice 15, and they are the whole run here
    launch = Launch((sys.executable, *entry), env, folder, config["trainer"]["total_training_steps"])
    (folder / "command.txt").write_text(launch.command() + "\n", encoding="utf-8")
    return launch


def run(launch: Launch, *, on_step: Callable[[int, dict[str, Any]], None], echo: bool = False) -> int:
    """Run verl to its end and return its exit code. Its output goes to ``log.txt`` (and to the terminal if ``echo``).

    Args:
        launch: from ``prepare``.
        on_step: called with the step and its metrics whenever verl logs them.
        echo: also show verl's raw output.
    """
    with open(launch.folder / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            launch.argv, env={**os.environ, **launch.env}, stdout=None if echo else log, stderr=subprocess.STDOUT
        )
        try:
            for step, metrics in _follow(Path(launch.env["VERL_FILE_LOGGER_PATH"]), process):
                on_step(step, metrics)
        except KeyboardInterrupt:  # from the terminal, verl got it too and is cleaning up
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe with its bases merged in and its mix as an absolute path. Raises RecipeError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise RecipeError(f"cannot read the recipe {str(path)!r}: {err.strerror}") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise RecipeError(f"{path} is not valid YAML: {err}") from err
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with at least the key 'mix'")
    if "mix" in content:
        if not isinstance(content["mix"], str):
            raise RecipeError(f"{path}: mix: {content['mix']!r} is not the path of a mix file")
        content["mix"] = str((path.parent / content["mix"]).resolve())
    if base := content.pop("base", None):
        content = _merge(read_recipe(path.parent / base), content)
    if "mix" not in content:
        raise RecipeError(f"{path}: the key 'mix' is missing; it names the mix file, relative to the recipe")
    return content


def preflight(mix_path: str) -> None:
    """Load both splits of a mix and draw samples until every task had its turn. Raises what is wrong with it."""
    splits: tuple[SplitName, ...] = ("train", "heldout")
    for split in splits:
        mix = load_mix(mix_path, split=split)
        missing = set(mix.tasks)
        for index in range(len(mix)):
            missing.discard(mix[index].recipe.task)
            if not missing:
                break


def _require_verl() -> None:
    missing = [name for name in ("torch", "verl", "transformers", "hydra") if importlib.util.find_spec(name) is None]
    if missing:
        raise RecipeError(
            f"training needs {', '.join(missing)}: pip install 'ssrl-core[train]' (without a GPU), "
            "or 'ssrl-core[vllm]' (with one)"
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _defaults(stage: Stage, mix: str, *, name: str) -> dict[str, Any]:
    trainer = {
        "project_name": "ssrl",
        "experiment_name": name,
        "default_local_dir": f"runs/{name}",
        "logger": ["console", "file", "tensorboard"],
    }
    if stage == "sft":
        return {
            "data": {
                "train_files": mix,
                "val_files": f"{mix}#heldout",
                "custom_cls": {"path": "pkg://ssrl_core.verl.dataset", "name": "MixSFTDataset"},
                "completion": None,
            },
            "model": {"external_lib": "ssrl_core.verl.workers"},
            "checkpoint": {"save_contents": ["model", "hf_model"], "load_contents": ["model"]},
            "trainer": trainer,
        }
    return {
        "algorithm": {"adv_estimator": "grpo"},
        "data": {
            "train_files": mix,
            "val_files": f"{mix}#heldout",
            "custom_cls": {"path": "pkg://ssrl_core.verl.dataset", "name": "MixDataset"},
            "shuffle": False,  # the mix is random already, and every batch of it has the stated proportions
        },
        "reward": {"custom_reward_function": {"path": "pkg://ssrl_core.verl.reward", "name": "compute_score"}},
        "actor_rollout_ref": {
            "model": {"external_lib": "ssrl_core.verl.workers"},
            "rollout": {"name": "vllm", "calculate_log_probs": True},
        },
        "trainer": trainer,
    }


def _on_cpu(stage: Stage) -> dict[str, Any]:
    """What verl needs to be told where there is no accelerator; see ``platform``, ``workers`` and ``rollout``."""
    model = {
        "use_remove_padding": False,
        "enable_gradient_checkpointing": False,
        "override_config": {"attn_implementation": "sdpa"},
    }
    engine = {"strategy": "fsdp2", "use_torch_compile": False, "mixed_precision": {"param_dtype": "fp32"}}
    trainer = {"device": "cpu", "n_gpus_per_node": 1, "nnodes": 1}
    workers = min(2, os.cpu_count() or 1)  # prompts and images are prepared in these, mostly in Python
    sampler = {"path": "pkg://ssrl_core.verl.sampler", "name": "PromptReplayBuffer"}
    if stage == "sft":
        return {
            "data": {"num_workers": 0, "use_dynamic_bsz": False},
            "model": model,
            "engine": engine,
            "trainer": trainer,
        }
    return {
        "data": {"dataloader_num_workers": 0},
        "actor_rollout_ref": {
            "model": model,
            "actor": {"strategy": "fsdp2", "use_torch_compile": False, "fsdp_config": engine},
            "ref": {"strategy": "fsdp2", "use_torch_compile": False, "fsdp_config": engine},
            "rollout": {"name": "transformers", "tensor_model_parallel_size": 1, "agent": {"num_workers": workers}},
        },
        "reward": {"num_workers": 1},
        # With verl's eight storage units a machine with few logical CPUs waits for ever, without a word.
        "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
        "ray_kwargs": {"ray_init": {"num_cpus": 16, "num_gpus": 1, "include_dashboard": False}},
        "trainer": {**trainer, "v1": {"sampler": {"custom_sampler": sampler}}},
    }


def _compose(stage: Stage, layer: Mapping[str, Any], overrides: Sequence[str], *, where: str) -> dict[str, Any]:
    """verl's configuration with our layer and the overrides, its interpolations kept."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("verl is not installed")
    verl_configs = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    name = _ENTRY[stage][0]
    with tempfile.TemporaryDirectory() as scratch:
        primary = {
            "defaults": [name, "_self_"],
            "hydra": {"searchpath": [f"file://{verl_configs}"]},
            **layer,
        }
        (Path(scratch) / "ssrl.yaml").write_text(yaml.safe_dump(primary), encoding="utf-8")
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(verl_configs), version_base=None):
                known = OmegaConf.to_container(compose(name), resolve=False)
            _check_keys(layer, known, where=where)  # type: ignore[arg-type]
            with initialize_config_dir(scratch, version_base=None):
                composed = compose("ssrl", overrides=list(overrides))
                config = OmegaConf.to_container(composed, resolve=False)
                folder = composed.trainer.default_local_dir
        except (HydraException, OmegaConfBaseException) as err:
            reason = "\n  ".join(line for line in str(err).splitlines() if line.strip())
            raise RecipeError(f"{where}, with overrides {list(overrides)}:\n  {reason}") from err
    config["trainer"]["default_local_dir"] = str(Path(folder).resolve())  # type: ignore[index, call-overload]
    return config  # type: ignore[return-value]


def _check_batches(config: Mapping[str, Any], *, where: str) -> None:
    """Raise RecipeError for micro-batches that do not divide their batch: verl finds out in the middle of a step."""
    policy = config["actor_rollout_ref"]
    actor, rollout, trainer = policy["actor"], policy["rollout"], config["trainer"]
    if actor["use_dynamic_bsz"] is not False:
        return
    workers = trainer["n_gpus_per_node"] * trainer["nnodes"]
    prompts = {"data.train_batch_size": config["data"]["train_batch_size"]}
    minis = {"actor_rollout_ref.actor.ppo_mini_batch_size": actor["ppo_mini_batch_size"]}
    for batch, key, micro in (
        (minis, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", actor["ppo_micro_batch_size_per_gpu"]),
        (
            prompts,
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
            rollout["log_prob_micro_batch_size_per_gpu"],
        ),
    ):
        ((name, size),) = batch.items()
        if not all(isinstance(number, int) for number in (size, micro, rollout["n"])):
            continue
        share = size * rollout["n"] / workers
        if share % micro:
            raise RecipeError(
                f"{where}: {key} = {micro} must divide the {share:g} rollouts that a worker gets of a batch "
                f"({name} = {size} prompts x rollout.n = {rollout['n']} / {workers} worker(s))"
            )


def _check_keys(layer: Mapping[str, Any], known: Mapping[str, Any], *, where: str, path: str = "") -> None:
    """Raise RecipeError for a key that verl's configuration does not have."""
    for key, value in layer.items():
        here = f"{path}.{key}" if path else str(key)
        if key not in known:
            if _UNLISTED.search(here):
                continue
            raise RecipeError(
                f"{where}: {here}: verl has no such setting.{did_you_mean(str(key), map(str, known))} "
                f"Known under {path or 'the top level'}: {', '.join(map(str, known))}"
            )
        if isinstance(value, Mapping) and not _OPEN.search(here):
            if not isinstance(known[key], Mapping):
                raise RecipeError(f"{where}: {here}: takes a value such as {known[key]!r}, not a mapping")
            _check_keys(value, known[key], where=where, path=here)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _fresh(path: Path) -> Path:
    """The path, or with a number where a run (that this one may resume) has left a file there."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def _follow(path: Path, process: subprocess.Popen[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records that verl appends to its metrics file, as they come, until the process ends."""
    read = 0
    running = True
    while running:
        running = process.poll() is None
        if path.exists():
            with open(path, "rb") as file:
                file.seek(read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    read += len(line)
                    record = json.loads(line)
                    yield record["step"], record["data"]
        if running:
            time.sleep(0.3)
