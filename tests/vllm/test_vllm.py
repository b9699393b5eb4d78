"""What users run on GPUs, with vLLM on the CPU: an evaluation, and GRPO through verl with vLLM's rollouts.

`make test-vllm` runs these tests in an environment of its own; see environment.sh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
import zmq
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.mix import load_mix
from ssrl_core.models.vllm import reason
from ssrl_core.verl import weights
from ssrl_core.verl.launch import RUN

pytestmark = pytest.mark.timeout(480)

KEPT = Path(__file__).parents[2] / "examples" / "tiny_vlm" / "model"
MIX = """
source: "synthetic:?width=160&height=120"
size: 112
samples: 400
heldout: {samples: 60}
tasks:
  cropped_patch: {level: 1}
  depth_ordering: {level: 1}
  ordered_frames: {level: 4}  # seven images a sample
  camera_motion: {level: 4}
  matched_point: {level: 1}
"""
SFT = """
mix: mix.yaml
model: {path: model}
data: {train_batch_size: 20, micro_batch_size_per_gpu: 20, max_length: 700}
optim: {lr: 2.0e-3, lr_scheduler_type: constant}
trainer: {total_training_steps: 24, save_freq: -1, logger: [console, file], default_local_dir: sft}
"""
GRPO = """
mix: mix.yaml
data: {train_batch_size: 10, max_prompt_length: 600, max_response_length: 20}
actor_rollout_ref:
  model: {path: sft/global_step_24/huggingface}
  actor:
    use_kl_loss: false
    ppo_mini_batch_size: 10
    ppo_micro_batch_size_per_gpu: 40
    optim: {lr: 1.0e-3}
  rollout:
    name: vllm
    n: 4
    log_prob_micro_batch_size_per_gpu: 40
    max_num_seqs: 40
    max_num_batched_tokens: 1024  # fewer than the prompts of a step have
    agent: {num_workers: 1}
    checkpoint_engine: {update_weights_bucket_megabytes: 1}  # several buckets
    engine_kwargs: {vllm: {worker_extension_cls: faulty_receiver.FaultyReceiver}}
trainer:
  total_training_steps: 8
  save_freq: -1
  test_freq: -1
  val_before_train: false
  logger: [console, file]
  default_local_dir: run
"""
STALE, BROKEN = 0, 5
"""The updates with planted faults. vLLM starts with random weights, so the first update counts most."""


def ssrl(*arguments: str) -> None:
    """Run a command in this process; servers and verl run in processes of their own."""
    result = CliRunner().invoke(app(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output[-8000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a mix and recipes; it is the working directory."""
    folder = tmp_path_factory.mktemp("vllm")
    for name, text in (("mix", MIX), ("sft", SFT), ("grpo", GRPO)):
        (folder / f"{name}.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # or Ray ends workers if other programs fill the memory
        yield folder


def test_vllm_and_transformers_write_the_same_greedy_answers(folder: Path) -> None:
    for engine in ("transformers", "vllm"):
        ssrl("eval", "mix.yaml", "--model", str(KEPT), "--engine", engine, "--max-tokens", "24", "-o", engine)
    answers = {}
    for engine in ("transformers", "vllm"):
        rows = [json.loads(line) for line in (folder / engine / "answers.jsonl").read_text().splitlines()]
        answers[engine] = {row["index"]: row for row in rows}
    ours, theirs = answers["transformers"], answers["vllm"]
    equal = sum(ours[index]["completion"] == theirs[index]["completion"] for index in ours)
    print(f"{equal} of {len(ours)} greedy completions are equal")
    assert len(ours) == len(theirs) == 60
    assert {row["task"] for row in ours.values()} == set(load_mix("mix.yaml").tasks)
    assert {row["prompt"].count("<image>") for row in ours.values()} == {1, 2, 5, 7}
    assert equal >= 54  # where two tokens nearly tie, the last bits decide


def test_grpo_with_vllm_rollouts_keeps_the_weights_in_step(folder: Path) -> None:
    """One run: an update that does not arrive is seen, right ones stay in step, and a broken one ends the run."""
    ssrl("tiny-model", "mix.yaml", "model")
    ssrl("sft", "sft.yaml")
    variables = {"STALE": str(STALE), "BROKEN": str(BROKEN), "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-m", "ssrl_core", "train", "grpo.yaml"],
        env=os.environ | variables, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    run = folder / "run"
    log = (run / "log.txt").read_text(errors="replace")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    gaps = {record["step"]: record["data"].get("training/rollout_probs_diff_max") for record in records}
    print({step: f"{gap:.1e}" for step, gap in gaps.items()})
    assert list(gaps) == list(range(1, BROKEN)), log[-4000:]
    assert all(record["data"]["actor/grad_norm"] > 0 for record in records[1:])
    assert "Error in _run_prompt" not in log
    assert gaps.pop(STALE + 1) > 4e-3  # 2e-2
    assert max(gaps.values()) < 4e-3  # 6e-4

    assert result.returncode == 1
    assert "a planted fault" in result.stderr
    config = yaml.safe_load((run / "config.yaml").read_text())
    name = config_name(run)
    assert not [process for process in psutil.process_iter() if variable(process, RUN) == name]
    limits = config["actor_rollout_ref"]["rollout"]["engine_kwargs"]["vllm"]["limit_mm_per_prompt"]
    assert limits["video"] == 0 and limits["image"]["count"] == 2 * 7  # twice what the mix has; vLLM refuses more
    longest = max(record["data"]["prompt_length/max"] for record in records)
    print(f"prompts have up to {longest:.0f} tokens")
    assert 7 * 12 < longest < config["data"]["max_prompt_length"]  # 12 tokens for each of seven images


def config_name(run: Path) -> str:
    """The name of a run that its workers have in their environment."""
    words = (run / "command.txt").read_text().split()
    return next(word.partition("=")[2] for word in words if word.startswith(f"{RUN}="))


def variable(process: psutil.Process, name: str) -> str | None:
    """A variable of a process's environment."""
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None


def test_an_update_ends_when_vllm_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SILENCE", 1.5)
    context, address = zmq.Context.instance(), f"ipc://{tmp_path}/s"
    ours, theirs = context.socket(zmq.REQ), context.socket(zmq.REP)
    ours.bind(address)
    theirs.connect(address)
    watched = weights._Watched(ours, received=None)
    watched.send(b"weights")
    threading.Thread(target=lambda: theirs.send(theirs.recv())).start()
    assert watched.recv() == b"weights"
    watched.send(b"more")
    with pytest.raises(TimeoutError, match="no answer"):
        watched.recv()
    for socket in (ours, theirs):
        socket.close(linger=0)


def test_runs_have_sockets_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for name in ("a", "b"):
        monkeypatch.setenv(RUN, name)
        names.add(weights.socket_of_run("ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"))
    assert len(names) == 2


def test_a_model_that_vllm_cannot_load_is_reported_with_vllms_reason(folder: Path) -> None:
    config = json.loads((KEPT / "config.json").read_text())
    broken = folder / "broken"
    broken.mkdir()
    for path in KEPT.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    config["text_config"]["hidden_size"] //= 2
    (broken / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(app(), ["eval", "mix.yaml", "--model", str(broken), "--engine", "vllm", "-o", "failed"])
    assert result.exit_code != 0
    message = str(result.exception)
    assert "failed/server.log" in message
    assert (reason((folder / "failed" / "server.log").read_text()) or "?") in message
