"""Runs of verl with given sizes, and figures from their metrics."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from ssrl_core.verl.recipe import override

HERE = Path(__file__).parent
PHASES = ("gen", "reward", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "save_checkpoint")
Metrics = list[dict[str, float]]


@dataclass(frozen=True)
class Scale:
    """Sizes of all stages.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        photos: number of rendered rooms; ``width`` and ``height`` in pixels.
        pairs: of steps in the stage ``steps``.
        prompts: per step, each with ``n`` rollouts.
        model: arguments of ``build_tiny_model``.
        pretraining, cold, learning: steps of the three parts of the stage ``learning``.
        engine: what makes the rollouts, ``"vllm"`` or ``"transformers"``.
    """

    device: str
    photos: int
    width: int
    height: int
    pairs: int
    prompts: int
    n: int
    model: dict[str, int]
    pretraining: int
    cold: int
    learning: int
    engine: str = "vllm"


def train(out: Path, scale: Scale, name: str, *overrides: str, steps: int, anew: bool = True) -> Metrics:
    """verl's metrics of each step of a GRPO run with the small model. ``anew=False`` continues the run."""
    folder = out / name / "run"
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    settings = [
        override("actor_rollout_ref.model.path", out / "model"),
        f"trainer.total_training_steps={steps}",
        override("trainer.default_local_dir", folder),
        override("trainer.rollout_data_dir", folder / "dumps"),
        f"data.train_batch_size={scale.prompts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={scale.prompts}",
        f"actor_rollout_ref.rollout.n={scale.n}",
    ]
    if scale.device == "cpu":
        for key in ("actor.ppo_micro_batch_size_per_gpu", "rollout.log_prob_micro_batch_size_per_gpu"):
            settings.append(f"actor_rollout_ref.{key}={scale.prompts * scale.n}")
        settings += ["data.max_response_length=16", "actor_rollout_ref.rollout.agent.num_workers=2"]
        settings += ["data.dataloader_num_workers=1", "reward.num_workers=1"]
    written = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    written.write_text(yaml.safe_dump({"include": str(HERE / "grpo.yaml"), "mix": str(out / "mix.yaml")}))
    return go(written, [*settings, *overrides], scale)


def go(path: Path, overrides: list[str], scale: Scale, *, stage: Any = "grpo") -> Metrics:
    """verl's metrics of each step of a run on a recipe. Exits if the run fails."""
    from ssrl_core.verl.launch import prepare, run
    from ssrl_core.verl.progress import StepLine

    if stage == "grpo":
        overrides = [f"actor_rollout_ref.rollout.name={scale.engine}", *overrides]
    launch = prepare(stage, path, overrides, device=scale.device)
    found: Metrics = []
    line = StepLine(launch.steps)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        line(step, metrics)
        found.append(metrics)

    code, lost, _, stopped = run(launch, on_step=on_step)
    if code or lost:
        raise SystemExit(
            stopped or f"verl ended with code {code}, {lost} prompts lost; see {launch.folder / 'log.txt'}"
        )
    return found


def timing(metrics: Metrics, *, warm_up: int = 2) -> dict[str, Any]:
    """Medians of the phases of a step in seconds, and of the shares of a step that were spent waiting."""
    steps = [found for found in metrics if "timing_s/step" in found]
    steps = steps[warm_up:] or steps[-1:]
    step = median(found["timing_s/step"] for found in steps)
    facts: dict[str, Any] = {"step_s": round(step, 3)}
    facts["phases_s"] = {
        phase: round(median(found[f"timing_s/{phase}"] for found in steps), 3)
        for phase in (*PHASES, "data_fetch", "render", "reward_each")
        if all(f"timing_s/{phase}" in found for found in steps)
    }
    for wait in ("data_wait", "reward_wait"):
        values = [found[f"timing_s/{wait}"] / found["timing_s/step"] for found in steps]
        facts[f"{wait}_share"] = round(median(values), 5)
    return facts


def grow(folder: Path, size: dict[str, Any]) -> int:
    """Replace the model of a folder by one of another size with random weights. Returns its number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    config = AutoConfig.from_pretrained(folder)
    for part in ("text_config", "vision_config"):
        for key, value in size[part].items():
            setattr(getattr(config, part), key, value)
    config.vision_config.window_size, config.vision_config.fullatt_block_indexes = 112, [7, 15, 23, 31]
    config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
    # Models of these kinds keep a list of their layers.
    config.text_config.layer_types = ["full_attention"] * config.text_config.num_hidden_layers
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = size["tie_word_embeddings"]
    config.text_config.max_position_embeddings = 32_768
    config.text_config.initializer_range = config.vision_config.initializer_range = config.initializer_range = 0.02
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
