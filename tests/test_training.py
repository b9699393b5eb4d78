"""Training through verl on the CPU, as a user runs it: a cold start, GRPO that is killed and resumed, learning.

Every start of verl takes about a minute of processor time, so one cold start and one interrupted run serve many tests.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import pytest

from ssrl_core.mix import Mix, load_mix

pytest.importorskip("verl", reason="the 'train' extra is not installed")

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoProcessor
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.models.completions import load_model
from ssrl_core.models.tiny import build_tiny_model
from ssrl_core.models.tokens import user_message

pytestmark = pytest.mark.training

FRAMES = Path(__file__).parents[2] / "shared" / "data" / "rgbd_kinect"
DEPTH = f"rgbd:{FRAMES}" if FRAMES.is_dir() else "synthetic:?width=192&height=144"
ONE_IMAGE = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
SEVERAL = ("ordered_frames", "camera_motion", "matched_point")
TASKS = (*ONE_IMAGE, *SEVERAL, "general")
CLIPS = "synthetic:?width=160&height=120"
ALL = f"""
source: folder:PHOTOGRAPHS
size: 140
samples: 4000
heldout: {{samples: 10, fraction: 0.2}}
tasks:
  shuffled_patches:
  flipped_patch:
  cropped_patch:
  depth_ordering: {{source: "{DEPTH}"}}
  relative_position: {{source: "{DEPTH}"}}
  ordered_frames: {{source: "{CLIPS}"}}
  camera_motion: {{source: "{CLIPS}"}}
  matched_point: {{source: "{CLIPS}"}}
  general: {{rows: "published/parquets/train.parquet?root=..", scorer: published}}
"""
SFT = """
mix: mix.yaml
model: {path: model}
data: {train_batch_size: 20, micro_batch_size_per_gpu: 20, max_length: 700, train_max_samples: 240}  # 12 steps an epoch
optim: {lr: 2.0e-3, lr_scheduler_type: constant}
trainer: {total_epochs: 1, save_freq: -1, save_on_signal: 600, logger: [console, file], default_local_dir: sft}
"""
PROMPTS, ROLLOUTS = 10, 4
GRPO = f"""
mix: mix.yaml
data: {{train_batch_size: {PROMPTS}, max_prompt_length: 600, max_response_length: 20}}
actor_rollout_ref:
  model: {{path: sft/global_step_24/huggingface}}
  actor:
    use_kl_loss: false
    freeze_vision_tower: true
    ppo_mini_batch_size: {PROMPTS}
    ppo_micro_batch_size_per_gpu: {PROMPTS * ROLLOUTS}
    optim: {{lr: 1.0e-3}}
  rollout: {{n: {ROLLOUTS}, log_prob_micro_batch_size_per_gpu: {PROMPTS * ROLLOUTS}, agent: {{num_workers: 1}}}}
trainer:
  total_training_steps: 6
  save_freq: 2
  save_on_signal: 600
  test_freq: 6
  val_before_train: false
  logger: [console, file]
  default_local_dir: run
  rollout_data_dir: run/rollouts
"""
PROBE = """
source: "blank:"
size: 64
samples: 4000
heldout: {samples: 100}
instruction: "Think, then box it."
tasks: {probe: }
"""
LEARN = """
mix: mix.yaml
data: {train_batch_size: 32, max_prompt_length: 100, max_response_length: 12}
actor_rollout_ref:
  model: {path: model}
  actor:
    use_kl_loss: false
    ppo_mini_batch_size: 32
    ppo_micro_batch_size_per_gpu: 256
    entropy_coeff: 0.01
    optim: {lr: 3.0e-3, lr_warmup_steps: 10, weight_decay: 0.0}
  rollout: {n: 8, log_prob_micro_batch_size_per_gpu: 256, agent: {num_workers: 1}}
trainer:
  total_training_steps: 20
  test_freq: 20
  save_freq: -1
  logger: [console, file]
  default_local_dir: run
"""


def ssrl(*arguments: str) -> None:
    """Run a command in this process; verl runs in processes of its own."""
    result = CliRunner().invoke(app(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output[-8000:]


def metrics(path: Path) -> dict[int, dict[str, float]]:
    """Step -> verl's metrics, from a file of metrics as far as it is written. A step may have several records."""
    found: dict[int, dict[str, float]] = {}
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        record = json.loads(line)
        found.setdefault(record["step"], {}).update(record["data"])
    return found


def rollouts(path: Path) -> list[dict[str, Any]]:
    """verl's dump of the rollouts of a step, without their ids, which number the prompts of a process."""
    return [json.loads(line) | {"uid": None} for line in path.read_text().splitlines()]


def trained(path: Path) -> dict[int, dict[str, float]]:
    """The metrics of steps with an update."""
    return {step: found for step, found in metrics(path).items() if "actor/grad_norm" in found}


def assert_healthy(run: Path) -> None:
    """Gradients flow, rollouts and updates use the same policy, and no prompt was lost."""
    found = trained(run / "metrics.jsonl").values()
    assert found
    assert all(m["actor/grad_norm"] > 0 for m in found)
    assert all(m["training/rollout_probs_diff_valid"] == 1 for m in found)
    assert max(m["training/rollout_probs_diff_max"] for m in found) < 1e-4
    log = (run / "log.txt").read_text(errors="replace")
    assert "Error in _run_prompt" not in log
    assert "no reward for a completion" not in log


def write_published(folder: Path, photographs: Path) -> None:
    """Rows in the layout of the published set: a table, and images in a folder beside that of the table."""
    (folder / "images").mkdir(parents=True)
    (folder / "parquets").mkdir()
    rows = []
    for path in sorted(photographs.iterdir()):
        with Image.open(path) as image:
            image.resize((112, 84)).save(folder / "images" / path.name)
        rows += [
            {
                "images": [f"images/{path.name}"],
                "problem": f"<image>Which letter is right? A, B or {letter}?",
                "answer": letter,
            }
            for letter in "CD"
        ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "parquets" / "train.parquet")


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and all its descendants, Ray and its workers included; by their ids."""
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for stop in (psutil.Process.suspend, psutil.Process.kill):  # suspended, none starts or writes anything more
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                stop(victim)
    process.wait()
    psutil.wait_procs(victims[1:], timeout=60)


def start(command: str, recipe: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, whose messages go to a file."""
    with open(folder / "stderr.txt", "wb") as messages:
        arguments = [sys.executable, "-m", "ssrl_core", command, recipe]
        return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=messages)


def terminated_after(steps: int, command: str, recipe: str, run: Path) -> str:
    """Start training, send SIGTERM once the metrics of so many steps are written. Returns the messages."""
    process = start(command, recipe, run.parent)
    while len(metrics(run / "metrics.jsonl")) < steps:
        assert process.poll() is None, (run / "log.txt").read_text(errors="replace")[-4000:]
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert not [member for member in family if member.is_running()]
    return (run.parent / "stderr.txt").read_text()


def killed_during_checkpoint(folder: Path, step: int) -> None:
    """Start the training run of a folder, and kill it in the middle of the checkpoint of a step.

    A named pipe takes the place of the model's file. The trainer waits when the pipe's buffer is full.
    """
    file = folder / "run" / f"global_step_{step}" / "actor" / "model_world_size_1_rank_0.pt"
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    pipe = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    process = start("train", "grpo.yaml", folder)
    while not select.select([pipe], [], [], 1)[0]:
        assert process.poll() is None, (folder / "run" / "log.txt").read_text(errors="replace")[-4000:]
    kill_all(process)
    os.close(pipe)
    file.unlink()


@pytest.fixture(scope="module", autouse=True)
def _busy_machine(one_thread: None) -> Iterator[None]:
    """Settings for a machine that has other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other take up to ten times the time
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # or Ray ends workers if other programs fill the memory
        yield


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Iterator[Path]:
    """A folder with a mix, recipes, a tiny model and its cold start; it is the working directory."""
    folder = tmp_path_factory.mktemp("training")
    for name, text in (("mix", ALL.replace("PHOTOGRAPHS", str(photographs))), ("sft", SFT), ("grpo", GRPO)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_published(folder / "published", photographs)
        ssrl("tiny-model", "mix.yaml", "model")
        said = terminated_after(3, "sft", "sft.yaml", folder / "sft")
        ssrl("sft", "sft.yaml")
        ssrl("sft", "sft.yaml", "trainer.total_epochs=2")  # continues
        (folder / "sft" / "stopped.txt").write_text(said)
        yield folder


class Interrupted(NamedTuple):
    """A run of GRPO that got SIGTERM in step 2, was killed while it wrote the checkpoint of step 6, and resumed."""

    folder: Path
    said: str  # by the process that got SIGTERM
    stopped: int  # step of the checkpoint that it wrote
    whole: int  # step of the last whole checkpoint after the kill
    dumps: dict[int, list[dict[str, Any]]]  # step -> rollouts that the killed process had written
    before: dict[int, dict[str, float]]  # step -> its metrics


@pytest.fixture(scope="module")
def interrupted(cold_start: Path) -> Interrupted:
    run = cold_start / "run"
    said = terminated_after(1, "train", "grpo.yaml", run)
    stopped = int((run / "latest_checkpointed_iteration.txt").read_text())
    killed_during_checkpoint(cold_start, step=6)
    whole = int((run / "latest_checkpointed_iteration.txt").read_text())
    before = trained(run / "metrics.jsonl")
    dumps = {int(path.stem): rollouts(path) for path in (run / "rollouts").glob("*.jsonl")}
    ssrl("train", "grpo.yaml")
    return Interrupted(run, said, stopped, whole, dumps, before)


def test_a_cold_start_that_got_sigterm_saves_and_continues_and_learns_the_form_of_the_answers(cold_start: Path) -> None:
    said = (cold_start / "sft" / "stopped.txt").read_text()
    (saved,) = re.findall(r"SIGTERM: ended after step (\d+)\. The last checkpoint is of step \1; the same", said)
    assert 3 <= int(saved) < 12
    records = [json.loads(line) for line in (cold_start / "sft" / "metrics.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["data"]["train/loss"] for record in records if "train/loss" in record["data"]}
    assert list(losses) == list(range(1, 25))
    assert mean([losses[23], losses[24]]) < 0.1 * losses[1]


def test_grpo_updates_the_policy_that_makes_the_rollouts(interrupted: Interrupted) -> None:
    assert_healthy(interrupted.folder)


def test_a_frozen_vision_tower_does_not_change_and_everything_else_does(interrupted: Interrupted) -> None:
    folders = interrupted.folder.parent / "sft/global_step_24", interrupted.folder / "global_step_6/actor"
    before, after = (load_model(str(folder / "huggingface")).state_dict() for folder in folders)
    assert before.keys() == after.keys()
    changed = {name: not torch.equal(tensor, after[name]) for name, tensor in before.items()}
    towers = {name for name in changed if ".visual." in name}
    assert len(towers) > 20
    assert not any(changed[name] for name in towers)
    assert all(changed[name] for name in changed.keys() - towers)


def test_rollouts_and_metrics_cover_the_tasks_on_images_views_and_clips_and_published_rows(
    interrupted: Interrupted,
) -> None:
    last = metrics(interrupted.folder / "metrics.jsonl")[6]
    for task in TASKS:
        assert f"rollout/{task}@1/acc" in last
        assert f"val-core/{task}@1/acc/mean@1" in last
    assert len(interrupted.dumps[1]) == PROMPTS * ROLLOUTS
    assert {round(rollout["score"], 6) for rollout in interrupted.dumps[1]} <= {0.0, 0.1, 0.9, 1.0}


def test_a_trainer_that_gets_sigterm_saves_its_step_and_ends(interrupted: Interrupted) -> None:
    assert 2 <= interrupted.stopped <= 4
    assert "SIGTERM: the run ends after this step, with a checkpoint" in interrupted.said
    came = f"ended after step {interrupted.stopped}. The last checkpoint is of step {interrupted.stopped}; the same"
    assert came in interrupted.said


def test_a_run_stopped_and_killed_during_a_checkpoint_sees_every_sample_once_and_in_order(
    interrupted: Interrupted,
) -> None:
    run, mix = interrupted.folder, load_mix(interrupted.folder.parent / "mix.yaml")
    assert interrupted.whole == 4
    assert list(trained(run / "metrics.jsonl")) == [1, 2, 3, 4, 5, 6]
    assert int((run / "latest_checkpointed_iteration.txt").read_text()) == 6
    for step in (1, 2, 3, 4, 5, 6):
        found = [json.loads(rollout["gts"])["truth"] for rollout in rollouts(run / "rollouts" / f"{step}.jsonl")]
        truths = [mix[index].sample.truth for index in range(PROMPTS * (step - 1), PROMPTS * step)]
        assert sorted(found) == sorted(truths * ROLLOUTS)


def test_a_resumed_run_repeats_the_lost_steps_to_the_digit(interrupted: Interrupted) -> None:
    after = trained(interrupted.folder / "metrics.jsonl")
    for key in ("critic/score/mean", "actor/grad_norm", "actor/entropy"):
        assert interrupted.before[5][key] == after[5][key]
    assert interrupted.dumps[5] == rollouts(interrupted.folder / "rollouts" / "5.jsonl")


def teach_form(folder: Path, mix: Mix) -> None:
    """Train the model of a folder on completions with random truths: it learns their form, and not to look."""
    model, processor = load_model(str(folder)), AutoProcessor.from_pretrained(folder)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    for step in range(50):
        examples = [mix[index] for index in range(40 * step, 40 * step + 40)]
        completions = [f"<think>.</think>\\boxed{{{'ABCD'[letter]}}}<|im_end|>" for letter in rng.integers(4, size=40)]
        prompts = [[user_message(example.prompt, lambda _: {"type": "image"})] for example in examples]
        inputs = processor(
            text=[
                processor.apply_chat_template(prompt, add_generation_prompt=True) + completion
                for prompt, completion in zip(prompts, completions, strict=True)
            ],
            images=[image for example in examples for image in example.sample.images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        labels = inputs["input_ids"].clone()
        labels[:, : -len(processor.tokenizer(completions[0])["input_ids"])] = -100
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def test_grpo_teaches_a_policy_that_knows_only_the_form_to_see(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(probe))
    Path("mix.yaml").write_text(PROBE)
    Path("learn.yaml").write_text(LEARN)
    build_tiny_model(load_mix("mix.yaml"), "model")
    teach_form(Path("model"), load_mix("mix.yaml"))
    ssrl("train", "learn.yaml")
    assert_healthy(tmp_path / "run")
    found = metrics(tmp_path / "run" / "metrics.jsonl")
    assert list(found) == list(range(21))
    assert found[0]["val-aux/probe@1/format/mean@1"] > 0.9  # it knows the form,
    assert found[0]["val-core/probe@1/acc/mean@1"] < 0.5  # and does not look
    assert found[20]["val-core/probe@1/acc/mean@1"] >= 0.9
