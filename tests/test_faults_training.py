"""A training that is killed, with everything that belongs to it, goes on from its last whole checkpoint."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ssrl_core.mix import load_mix

pytest.importorskip("verl", reason="the 'train' extra is not installed")
psutil = pytest.importorskip("psutil", reason="psutil is not installed")
pytestmark = pytest.mark.slow

MIX = """
source: "blank:"
size: 64
samples: 4000
heldout: {samples: 2}
instruction: "Think, then box it."
tasks: {probe: }
"""
RECIPE = """
mix: mix.yaml
data: {train_batch_size: 8, max_prompt_length: 500, max_response_length: 4}
actor_rollout_ref:
  actor:
    use_kl_loss: false
    ppo_mini_batch_size: 8
    ppo_micro_batch_size_per_gpu: 16
    checkpoint: {save_contents: [model, optimizer, extra, hf_model]}
  rollout: {n: 2, log_prob_micro_batch_size_per_gpu: 16}
trainer:
  total_training_steps: 6
  save_freq: 2
  test_freq: -1
  val_before_train: false
  resume_mode: auto
  logger: [console, file]
"""
BATCH, ROLLOUTS = 8, 2


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and everything below it, Ray and its workers included; by their ids."""
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.suspend()  # so that none starts, ends or writes anything more
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait()
    psutil.wait_procs(victims[1:], timeout=60)


def steps(metrics: Path) -> list[int]:
    """The training steps that a file of metrics tells of, as far as it is written."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return [line["step"] for line in map(json.loads, lines) if "actor/grad_norm" in line["data"]]


def truths(rollouts: Path, *, upto: int) -> dict[int, list[str]]:
    """Step -> the sorted truths of its rollouts, from verl's dumps."""
    dumps = {step: (rollouts / f"{step}.jsonl").read_text().splitlines() for step in range(1, upto + 1)}
    return {step: sorted(json.loads(json.loads(line)["gts"])["truth"] for line in dumps[step]) for step in dumps}


def test_a_trainer_killed_during_a_checkpoint_and_between_two_sees_every_sample_once_and_in_order(
    tmp_path: Path, probe: Path
) -> None:
    (tmp_path / "mix.yaml").write_text(MIX)
    (tmp_path / "grpo.yaml").write_text(RECIPE)
    environment = os.environ | {"PYTHONPATH": str(probe)}
    ssrl = [sys.executable, "-m", "ssrl_core"]
    subprocess.run([*ssrl, "tiny-model", "mix.yaml", "model"], cwd=tmp_path, env=environment, check=True)
    run = tmp_path / "run"
    train = [
        *(*ssrl, "train", "grpo.yaml", "actor_rollout_ref.model.path=model"),
        *(f"trainer.default_local_dir={run}", f"trainer.rollout_data_dir={run}/rollouts"),
    ]

    def killed_when(condition: Callable[[], bool]) -> None:
        process = subprocess.Popen(train, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        while not condition():
            assert process.poll() is None, (run / "log.txt").read_text(errors="replace")[-4000:]
            time.sleep(0.001)
        kill_all(process)

    def last_whole_checkpoint() -> int:
        return int((run / "latest_checkpointed_iteration.txt").read_text())

    mix = load_mix(tmp_path / "mix.yaml")
    in_order = {
        step: sorted([mix[index].sample.truth for index in range(BATCH * (step - 1), BATCH * step)] * ROLLOUTS)
        for step in range(1, 7)
    }

    killed_when((run / "global_step_4").exists)
    assert last_whole_checkpoint() == 2
    assert truths(run / "rollouts", upto=3) == {step: in_order[step] for step in (1, 2, 3)}

    killed_when(lambda: 3 in steps(run / "metrics-2.jsonl"))
    assert last_whole_checkpoint() == 2
    assert steps(run / "metrics-2.jsonl") == [3]

    subprocess.run(train, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, check=True)
    assert steps(run / "metrics-3.jsonl") == [3, 4, 5, 6]
    assert last_whole_checkpoint() == 6
    assert truths(run / "rollouts", upto=6) == in_order
