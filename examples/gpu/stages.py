"""The stages of run.py. Each returns its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from training import Metrics, Scale, go, grow, timing, train

from ssrl_core.verl.recipe import override

HERE = Path(__file__).parent
EXAMPLES = HERE.parent
FIVE = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
LARGE = {"hidden": 512, "layers": 8, "vision_hidden": 384, "vision_layers": 8}
GPU = Scale("cuda", 240, 640, 480, 10, 64, 8, LARGE, 2500, 60, 40)
DRY = Scale("cpu", 12, 192, 144, 1, 5, 2, {}, 0, 2, 2, "transformers")


def photos(out: Path, scale: Scale) -> dict[str, Any]:
    """Write rooms as colour and depth files, the mixes that read them, and a small model with random weights."""
    from concurrent.futures import ProcessPoolExecutor

    from ssrl_core.mix import load_mix
    from ssrl_core.models.tiny import build_tiny_model

    folder = out / "photos"
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(_photo, [(str(folder), i, scale.width, scale.height) for i in range(scale.photos)]))
    heldout = {"samples": 250 if scale.device == "cuda" else 5, "fraction": 0.1}
    common = {"seed": 1, "samples": 20_000, "heldout": heldout}
    tasks = {name: {"weight": 1, "level": 1} for name in FIVE}
    rooms = "synthetic:?width=192&height=144"  # the kind of images that the model of `learning` is pretrained on
    for name, source, size in (
        ("mix", f"rgbd:{folder}", 112),
        ("mix-512", f"rgbd:{folder}", 512),
        ("rooms", rooms, 112),
    ):
        content = {**common, "source": source, "size": size, "tasks": tasks}
        (out / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    parameters = build_tiny_model(load_mix(out / "mix.yaml"), out / "model", **scale.model)
    return {"photos": len(sizes), "bytes": sum(sizes), "parameters": parameters}


def _photo(arguments: tuple[str, int, int, int]) -> int:
    import cv2
    import numpy as np

    from ssrl_core.sources import open_source

    folder, index, width, height = arguments
    image = open_source(f"synthetic:?width={width}&height={height}&seed=3").load(str(index))
    assert image.depth is not None
    colour, depth = Path(folder, f"{index}.color.jpg"), Path(folder, f"{index}.depth.png")
    cv2.imwrite(str(depth), np.nan_to_num(image.depth * 1000).clip(0, 65535).astype(np.uint16))
    cv2.imwrite(str(colour), cv2.cvtColor(image.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return colour.stat().st_size + depth.stat().st_size


def steps(out: Path, scale: Scale) -> dict[str, Any]:
    """Phases of a GRPO step with a small model, and the ratio of step times of our dataset and verl's own, in turns.

    One run, because its start takes longer than its steps. The phases are those of the steps with our dataset.
    """
    from interleaved import is_ours

    pairs = scale.pairs + 1  # the first pair warms up
    count = (pairs + 1) * scale.prompts  # the stage `resume` trains another pair
    parquet = out / "steps" / "parquet"
    command = [sys.executable, "-m", "ssrl_core", "export", str(out / "mix.yaml"), "-o", str(parquet)]
    subprocess.run([*command, "-n", str(count), "--workers", "2"], check=True)
    metrics = _interleaved(out, scale, steps=2 * pairs, anew=True)
    times: dict[bool, list[float]] = {True: [], False: []}
    for step, found in enumerate(metrics, 1):
        times[is_ours(step)].append(found["timing_s/step"])
    ratios = sorted(ours / stock for ours, stock in zip(times[True][1:], times[False][1:], strict=True))
    quarter = len(ratios) // 4
    return {
        "steps": 2 * pairs,
        **timing([found for step, found in enumerate(metrics, 1) if is_ours(step)], warm_up=1),
        "pairs": len(ratios),
        "ratio": round(median(ratios), 4),
        "quartiles": [round(ratios[quarter], 4), round(ratios[-1 - quarter], 4)],
        "ours_s": round(median(times[True][1:]), 3),
        "stock_s": round(median(times[False][1:]), 3),
        "steps_s": [round(found["timing_s/step"], 3) for found in metrics],
        "gap": max(found["training/rollout_probs_diff_max"] for found in metrics),
    }


def resume(out: Path, scale: Scale) -> dict[str, Any]:
    """The number of steps, before and after a resumption, that had the samples of the mix in its order."""
    from ssrl_core.mix import load_mix

    last = 2 * scale.pairs + 4
    metrics = _interleaved(out, scale, steps=last, anew=False)
    mix = load_mix(out / "mix.yaml")
    right = 0
    for step in range(1, last + 1):
        lines = (out / "steps" / "run" / "dumps" / f"{step}.jsonl").read_text().splitlines()
        found = sorted(json.loads(json.loads(line)["gts"])["truth"] for line in lines)
        first = (step - 1) // 2 * scale.prompts
        expected = [mix[index].sample.truth for index in range(first, first + scale.prompts)]
        right += found == sorted(expected * scale.n)
    return {"steps": last, "trained_after": len(metrics), "steps_with_the_right_samples": right}


def _interleaved(out: Path, scale: Scale, *, steps: int, anew: bool) -> Metrics:
    """verl's metrics of a run whose batches come from our dataset and verl's own in turns, over the same samples."""
    shards = ",".join(json.dumps(str(path)) for path in sorted((out / "steps" / "parquet").glob("*.parquet")))
    return train(
        out,
        scale,
        "steps",
        f"data.train_files=[{json.dumps(str(out / 'mix.yaml'))},{shards}]",
        override("data.custom_cls.path", HERE / "interleaved.py"),
        "data.custom_cls.name=Interleaved",
        "data.dataloader_num_workers=0",  # otherwise rows of a step would be made during the step before it
        steps=steps,
        anew=anew,
    )


def recipe(out: Path, scale: Scale) -> dict[str, Any]:
    """Phases and memory of the second step of the recipe of the 3B model for one GPU."""
    from ssrl_core.mix import load_mix
    from ssrl_core.models.tiny import build_tiny_model
    from ssrl_core.verl.sizes import SIZES

    model = out / "recipe" / "model"
    build_tiny_model(load_mix(out / "mix.yaml"), model)
    overrides = [
        f"mix={out / 'mix-512.yaml'}",
        override("actor_rollout_ref.model.path", model),
        "trainer.total_training_steps=2",  # the first step includes the start of workers
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
        "trainer.logger=[console,file]",
        "++ray_kwargs.ray_init.include_dashboard=false",
        override("trainer.default_local_dir", out / "recipe" / "run"),
    ]
    if scale.device == "cuda":
        parameters = grow(model, SIZES["Qwen/Qwen2.5-VL-3B-Instruct"])
    else:  # the same settings with small sizes
        from ssrl_core.models.completions import load_model

        parameters = sum(p.numel() for p in load_model(str(model)).parameters())
        overrides += [
            f"mix={out / 'mix.yaml'}",
            f"data.train_batch_size={scale.prompts}",
            "data.max_response_length=16",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={scale.prompts}",
            f"actor_rollout_ref.rollout.n={scale.n}",
            "actor_rollout_ref.model.lora_rank=8",
            "actor_rollout_ref.actor.fsdp_config.param_offload=false",
            "actor_rollout_ref.actor.fsdp_config.optimizer_offload=false",
        ]
    metrics = go(EXAMPLES / "recipes" / "qwen2.5-vl-3b-grpo-1gpu.yaml", overrides, scale)
    kept = ("perf/max_memory_allocated_gb", "perf/max_memory_reserved_gb", "perf/throughput", "perf/mfu/actor")
    facts = {key: metrics[-1][key] for key in kept if key in metrics[-1]}
    return {"parameters": parameters, **timing(metrics, warm_up=1), **facts}


def learning(out: Path, scale: Scale) -> dict[str, Any]:
    """Held-out accuracy by task before and after GRPO."""
    folder = out / "learning"
    pretraining = EXAMPLES / "tiny_vlm" / "pretrain.py"
    # ---- The pretraining of examples/tiny_vlm
    if not scale.pretraining:
        model, note = out / "model", "a dry run does not pretrain"
    elif not pretraining.exists():
        return {"skipped": f"{pretraining} does not exist"}
    else:
        command = [sys.executable, str(pretraining), "--size", "large", "--out", str(folder / "pretrained")]
        command += ["--steps", str(scale.pretraining), "--workers", "12", "--device", scale.device]
        subprocess.run(command, check=True)
        model, note = folder / "pretrained" / "model", f"pretrained for {scale.pretraining} steps"
    # ----
    from ssrl_core.verl.progress import accuracies

    sft = folder / "sft"
    settings = [
        f"mix={out / 'rooms.yaml'}",
        override("model.path", model),
        "data.num_workers=0",
        "model.use_remove_padding=false",
        "data.use_dynamic_bsz=false",
    ]
    settings += ["++model.override_config.attn_implementation=sdpa", "optim.lr=2e-4"]
    settings += [f"trainer.total_training_steps={scale.cold}", override("trainer.default_local_dir", sft)]
    if scale.device == "cpu":
        settings += ["data.train_batch_size=5", "data.micro_batch_size_per_gpu=5", "data.val_max_samples=5"]
    go(EXAMPLES / "demo" / "sft.yaml", settings, scale, stage="sft")
    metrics = train(
        out,
        scale,
        "learning",
        f"mix={out / 'rooms.yaml'}",
        override("actor_rollout_ref.model.path", sft / f"global_step_{scale.cold}" / "huggingface"),
        "trainer.val_before_train=true",
        f"trainer.test_freq={max(scale.learning // 4, 1)}",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=true",
        steps=scale.learning,
    )
    curve = [found for record in metrics if (found := accuracies(record))]
    first, last = (mean(point.values()) for point in (curve[0], curve[-1]))
    return {
        "note": note,
        "steps": scale.learning,
        "before": curve[0],
        "after": curve[-1],
        "points_added": round(100 * (last - first), 1),
        "rollout_accuracy": [round(m["rollout/all/acc"], 3) for m in metrics if "rollout/all/acc" in m],
    }


STAGES: dict[str, Callable[[Path, Scale], dict[str, Any]]] = {
    stage.__name__: stage for stage in (photos, steps, resume, recipe, learning)
}
SETS = {"A": ("photos", "steps", "resume"), "B": ("photos", "recipe", "learning")}
"""Stages for one call on a machine that is lent for a short time."""
