"""All tasks on real photographs and real RGB-D frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task

KINECT = Path(__file__).parents[2] / "shared" / "data" / "rgbd_kinect"
RGB = ("shuffled_patches", "flipped_patch", "cropped_patch")
DEPTH = ("depth_ordering", "relative_position")
needs_frames = pytest.mark.skipif(not KINECT.is_dir(), reason=f"needs the RGB-D frames in {KINECT}")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photographs of scikit-image and scikit-learn as JPEG files."""
    folder = tmp_path_factory.mktemp("photographs")
    for package, below, names in (
        ("skimage", "data", ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")),
        ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
    ):
        spec = find_spec(package)  # importing the packages takes seconds
        assert spec and spec.origin, package
        for name in names:
            with Image.open(Path(spec.origin).parent / below / name) as image:
                image.convert("RGB").save((folder / name).with_suffix(".jpg"), quality=90)
    return folder


def mix_text(photographs: Path, *, size: int, level: str | None = None) -> str:
    """A mix with colour tasks on the photographs and depth tasks on the frames."""
    lines = [f"size: {size}", "samples: 5000", "heldout: {samples: 10, fraction: 0.2}", "tasks:"]
    level = f", level: {level}" if level else ""
    lines += [f"  {task}: {{source: 'folder:{photographs}'{level}}}" for task in RGB]
    lines += [f"  {task}: {{source: 'rgbd:{KINECT}'{level}}}" for task in DEPTH]
    return "\n".join(lines)


@pytest.mark.parametrize("level", ["1", "2", "3", "paper"])
@pytest.mark.parametrize("task", RGB)
def test_colour_tasks_make_samples_of_photographs_at_every_level(write_mix, photographs, task, level):
    assert level in load_task(task).info.levels
    mix = load_mix(write_mix(f"source: 'folder:{photographs}'\ntasks: {{{task}: {{level: {level}}}}}"))
    made = [mix[index] for index in range(30)]
    assert len({example.recipe.image_id for example in made}) >= 3
    assert sum(mix.rejections[task].values()) < 15  # less than a third of the images


@needs_frames
@pytest.mark.parametrize("level", ["1", "2", "3", "paper"])
@pytest.mark.parametrize("task", DEPTH)
def test_depth_tasks_make_samples_of_frames_at_every_level(write_mix, task, level):
    mix = load_mix(write_mix(f"source: 'rgbd:{KINECT}'\ntasks: {{{task}: {{level: {level}}}}}"))
    made = [mix[index] for index in range(30)]
    assert len({example.recipe.image_id for example in made}) >= 10
    assert sum(mix.rejections[task].values()) < 15


@needs_frames
@pytest.mark.slow
def test_all_five_tasks_train_on_real_images(write_mix, photographs, tmp_path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    write_mix(mix_text(photographs, size=140))
    sft = write_mix(
        f"""
mix: mix.yaml
data: {{train_batch_size: 40, micro_batch_size_per_gpu: 40, max_length: 700, val_max_samples: 40}}
model: {{path: {tmp_path}/model}}
optim: {{lr: 2.0e-3, lr_scheduler_type: constant}}
trainer: {{logger: [console, file], total_training_steps: 16, default_local_dir: {tmp_path}/sft}}
""",
        "sft.yaml",
    )
    grpo = write_mix(
        f"""
mix: mix.yaml
data: {{train_batch_size: 10, max_prompt_length: 600, max_response_length: 24}}
actor_rollout_ref:
  model: {{path: {tmp_path}/sft/global_step_16/huggingface}}
  actor: {{use_kl_loss: false, ppo_mini_batch_size: 10, ppo_micro_batch_size_per_gpu: 20}}
  rollout: {{n: 4, log_prob_micro_batch_size_per_gpu: 20}}
trainer:
  logger: [console, file]
  default_local_dir: {tmp_path}/run
  total_training_steps: 3
  val_before_train: false
  rollout_data_dir: {tmp_path}/run/rollouts
""",
        "grpo.yaml",
    )
    for command in (["tiny-model", tmp_path / "mix.yaml", tmp_path / "model"], ["sft", sft], ["train", grpo]):
        subprocess.run([sys.executable, "-m", "ssrl_core", *map(str, command)], check=True, env=os.environ)
    steps = [json.loads(line)["data"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [metrics for metrics in steps if "actor/grad_norm" in metrics]
    assert len(trained) == 3
    assert all(metrics["actor/grad_norm"] > 0 for metrics in trained)
    assert max(metrics["training/rollout_probs_diff_max"] for metrics in trained) < 1e-4
    assert "Error in _run_prompt" not in (tmp_path / "run" / "log.txt").read_text(errors="replace")
    rollouts = (tmp_path / "run" / "rollouts" / "1.jsonl").read_text().splitlines()
    assert len(rollouts) == 10 * 4
