"""The whole way through verl on the CPU, as a user would go it: with the command line, on real rollouts and updates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from ssrl_core.mix import load_mix

pytest.importorskip("verl", reason="the 'train' extra is not installed")
pytestmark = pytest.mark.slow

FIVE = """
source: "synthetic:?width=192&height=144"
size: 112
samples: 4000
heldout: {samples: 10}
tasks: {shuffled_patches: , flipped_patch: , cropped_patch: , depth_ordering: , relative_position: }
"""
PROBE = """
source: "blank:"
size: 64
samples: 4000
heldout: {samples: 200}
instruction: "Think, then box it."
tasks: {TASK: }
"""
SFT = """
mix: mix.yaml
data: {train_batch_size: 40, micro_batch_size_per_gpu: 40, max_length: 512}
optim: {lr: 2.0e-3, lr_scheduler_type: constant}
trainer: {total_epochs: 1, save_freq: -1, logger: [console, file], resume_mode: disable}
"""
GRPO = """
mix: mix.yaml
data: {max_prompt_length: 500, max_response_length: 20}
actor_rollout_ref:
  actor:
    use_kl_loss: false
    ppo_micro_batch_size_per_gpu: 64
    optim: {lr: 1.0e-3, lr_warmup_steps: 10, weight_decay: 0.0}
    checkpoint: {save_contents: [model, hf_model]}
  rollout: {log_prob_micro_batch_size_per_gpu: 64}
trainer: {total_epochs: 1, logger: [console, file], val_before_train: false, test_freq: -1, resume_mode: disable}
"""


def ssrl(*arguments: object, site: Path | None = None) -> None:
    """Run the command line to its end; with further plugins in the folder ``site``."""
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    result = subprocess.run(
        [sys.executable, "-m", "ssrl_core", *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]


def metrics(run: Path) -> list[dict[str, float]]:
    """verl's metrics of every step."""
    return [json.loads(line)["data"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_healthy(run: Path, *, steps: int) -> None:
    """Gradients flow, rollouts and updates see the same policy, and no prompt was lost."""
    trained = [m for m in metrics(run) if "actor/grad_norm" in m]
    assert len(trained) == steps
    assert all(m["actor/grad_norm"] > 0 for m in trained)
    assert all(m["training/rollout_probs_diff_valid"] == 1 for m in trained)
    assert max(m["training/rollout_probs_diff_max"] for m in trained) < 1e-4
    log = (run / "log.txt").read_text(errors="replace")
    assert "Error in _run_prompt" not in log
    assert "no reward for a completion" not in log


def test_a_cold_start_and_grpo_train_all_five_tasks(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(FIVE)
    (tmp_path / "sft.yaml").write_text(SFT)
    (tmp_path / "grpo.yaml").write_text(GRPO)
    ssrl("tiny-model", tmp_path / "mix.yaml", tmp_path / "model")
    ssrl(
        "sft",
        tmp_path / "sft.yaml",
        f"model.path={tmp_path}/model",
        "trainer.total_training_steps=14",
        f"trainer.default_local_dir={tmp_path}/sft",
    )
    losses = [m["train/loss"] for m in metrics(tmp_path / "sft") if "train/loss" in m]
    assert len(losses) == 14
    assert mean(losses[-2:]) < 0.5 * losses[0]

    run = tmp_path / "grpo"
    grpo = (
        "train",
        tmp_path / "grpo.yaml",
        f"actor_rollout_ref.model.path={tmp_path}/sft/global_step_14/huggingface",
        "data.train_batch_size=20",
        "actor_rollout_ref.actor.ppo_mini_batch_size=20",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=40",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=40",
        "actor_rollout_ref.rollout.n=4",
        "trainer.test_freq=3",
        "trainer.save_freq=3",
        "trainer.resume_mode=auto",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        f"trainer.rollout_data_dir={run}/rollouts",
        f"trainer.default_local_dir={run}",
    )
    ssrl(*grpo, "trainer.total_training_steps=3")
    assert_healthy(run, steps=3)
    assert {f"rollout/{task}@1/acc" for task in load_mix(tmp_path / "mix.yaml").tasks} <= metrics(run)[-1].keys()
    rollouts = [json.loads(line) for line in (run / "rollouts" / "1.jsonl").read_text().splitlines()]
    assert len(rollouts) == 20 * 4
    assert {round(r["score"], 6) for r in rollouts} <= {0.0, 0.1, 1.0}
    last = metrics(run)[-1]
    for task in ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position"):
        assert f"val-core/{task}@1/acc/mean@1" in last

    ssrl(*grpo, "trainer.total_training_steps=4")
    again = [json.loads(line) for line in (run / "metrics-2.jsonl").read_text().splitlines()]
    assert [line["step"] for line in again if "actor/grad_norm" in line["data"]] == [4]
    mix = load_mix(tmp_path / "mix.yaml")
    for step in (1, 2, 3, 4):  # the order of the mix, as if nothing had happened
        dump = (run / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        expected = [mix[index].sample.truth for index in range(20 * step - 20, 20 * step)]
        assert sorted(json.loads(json.loads(line)["gts"])["truth"] for line in dump) == sorted(expected * 4)


def test_grpo_teaches_a_policy_that_knows_only_the_form_to_see(tmp_path: Path, probe_site: Path) -> None:
    (tmp_path / "mix.yaml").write_text(PROBE.replace("TASK", "probe"))
    (tmp_path / "blind.yaml").write_text(PROBE.replace("TASK", "probe_blind"))
    (tmp_path / "sft.yaml").write_text(SFT)
    (tmp_path / "grpo.yaml").write_text(GRPO)
    ssrl("tiny-model", tmp_path / "mix.yaml", tmp_path / "model", site=probe_site)
    ssrl(
        "sft",
        tmp_path / "sft.yaml",
        "mix=" + str(tmp_path / "blind.yaml"),
        f"model.path={tmp_path}/model",
        "data.completion='<think>.</think>\\boxed{{{truth}}}'",
        "trainer.total_training_steps=50",
        f"trainer.default_local_dir={tmp_path}/sft",
        site=probe_site,
    )
    run = tmp_path / "grpo"
    ssrl(
        "train",
        tmp_path / "grpo.yaml",
        f"actor_rollout_ref.model.path={tmp_path}/sft/global_step_50/huggingface",
        "data.train_batch_size=32",
        "data.max_response_length=12",
        "actor_rollout_ref.actor.ppo_mini_batch_size=32",
        "actor_rollout_ref.actor.optim.lr=1.5e-3",
        # Without it, the policy sometimes settles on three of the four colours before it can tell the last two apart.
        "actor_rollout_ref.actor.entropy_coeff=0.01",
        "actor_rollout_ref.rollout.n=8",
        "trainer.total_training_steps=40",
        "trainer.val_before_train=true",
        "trainer.test_freq=40",
        f"trainer.default_local_dir={run}",
        site=probe_site,
    )
    assert_healthy(run, steps=40)
    accuracy = [m["val-core/probe@1/acc/mean@1"] for m in metrics(run) if "val-core/probe@1/acc/mean@1" in m]
    form = [m["val-aux/probe@1/format/mean@1"] for m in metrics(run) if "val-aux/probe@1/format/mean@1" in m]
    assert form[0] > 0.9  # it knows the form,
    assert accuracy[0] < 0.5  # and does not look
    assert accuracy[-1] >= 0.9
