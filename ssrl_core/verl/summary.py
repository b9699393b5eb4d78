"""What a run will do and need, on one screen: the result of ``ssrl train --dry-run``."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from typing import Any

from ..mix import load_mix
from .checks import steps_per_epoch
from .launch import Launch
from .memory import GIB, GPU, Need, checkpoint_bytes, model, model_of, need
from .recipe import Stage


def summary(stage: Stage, launch: Launch) -> str:
    """The summary of a checked run, a line for each subject."""
    return "\n".join(f"  {name + ':':12} {text}" for name, text in _lines(stage, launch))


def _lines(stage: Stage, launch: Launch) -> Iterator[tuple[str, str]]:
    config: Any = launch.config
    trainer, data = config["trainer"], config["data"]
    path = (config["model"] if stage == "sft" else config["actor_rollout_ref"]["model"])["path"]
    known = model_of(path)
    size = model(known) if known else None
    yield "folder", str(launch.folder)
    yield "model", path + (f", {size.parameters / 1e9:.2f} billion parameters" if size else ", of unknown size")
    train, heldout = load_mix(launch.mix), load_mix(launch.mix, split="validation")
    yield "mix", f"{launch.mix}, {len(train)} samples, {len(heldout)} held out"
    parts = []
    for task, images in heldout.images.items():
        puzzles = heldout.shares[task] * len(heldout)
        parts.append(f"{task} {puzzles:.0f} of {images} images" if images else f"{task} {puzzles:.0f}")
    yield "held out", "; ".join(parts)
    gpus = trainer["n_gpus_per_node"] * trainer["nnodes"]
    place = (
        "CPU" if trainer["device"] == "cpu" else f"{trainer['nnodes']} node(s) x {trainer['n_gpus_per_node']} GPU(s)"
    )
    yield "machine", place + ("" if trainer["device"] == "cpu" else f"; {_attention(config, stage)}")
    yield from _steps(stage, launch, gpus)
    if size and trainer["device"] != "cpu":
        yield "memory", _memory(need(stage, config, size))
    yield "checkpoints", _checkpoints(stage, launch, checkpoint_bytes(stage, config, size) if size else None)
    logger = trainer["logger"]
    yield "logging", logger if isinstance(logger, str) else ", ".join(logger)
    limit, save = trainer["time_limit"], trainer["save_on_signal"]
    signals = f"a checkpoint first, at most {save:g} s" if save else "no checkpoint first"
    yield "stops", f"on SIGTERM, SIGINT, SIGHUP{f' and after {limit:g} s' if limit else ''}: {signals}"
    if data.get("custom_cls", {}).get("name") == "AdaptiveMixDataset":
        yield "samples", "those of the kinds that the policy sometimes solves (AdaptiveMixDataset)"


def _attention(config: Any, stage: Stage) -> str:
    engine_model = config["model"] if stage == "sft" else config["actor_rollout_ref"]["model"]
    kind = engine_model["override_config"].get("attn_implementation") or "flash_attention_2"
    padding = "without padding" if engine_model["use_remove_padding"] else "with padding"
    here = "" if importlib.util.find_spec("flash_attn") else ", because flash-attn is not installed here"
    return f"attention {kind} {padding}{here if kind == 'sdpa' else ''}"


def _steps(stage: Stage, launch: Launch, gpus: int) -> Iterator[tuple[str, str]]:
    config: Any = launch.config
    data, trainer = config["data"], config["trainer"]
    batch = data["train_batch_size"]
    steps = (
        trainer["total_training_steps"] or steps_per_epoch(config, len(load_mix(launch.mix))) * trainer["total_epochs"]
    )
    tokens = launch.tokens
    longest = (
        f"{tokens.most} at most ({tokens.how})" if tokens and tokens.most else f"unknown ({tokens and tokens.how})"
    )
    if stage == "sft":
        micro = data["micro_batch_size_per_gpu"]
        each = batch // gpus
        count = f"up to {data['max_token_len_per_gpu']} tokens" if data["use_dynamic_bsz"] else f"{micro} samples"
        yield "step", f"{steps} steps of {batch} samples: {each} a GPU, in micro-batches of {count}"
        yield "tokens", f"a sample {longest}, limit {data['max_length']}"
        return
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    n, mini = rollout["n"], actor["ppo_mini_batch_size"]
    workers = gpus // (actor["ulysses_sequence_parallel_size"] or 1)
    if actor["use_dynamic_bsz"]:
        micro = f"micro-batches of up to {actor['ppo_max_token_len_per_gpu']} tokens"
    else:
        each = actor["ppo_micro_batch_size_per_gpu"]
        micro = f"{mini * n / workers / each:g} micro-batches of {each}" if each else "micro-batches of unknown size"
    yield (
        "step",
        (
            f"{steps} steps of {batch} prompts x {n} rollouts: {batch * n / workers:g} rollouts a GPU; "
            f"{batch / mini:g} update(s) of {mini * n} rollouts, {mini * n / workers:g} a GPU in {micro}"
        ),
    )
    limit, response = data["max_prompt_length"], data["max_response_length"]
    most = tokens.most if tokens and tokens.most else limit
    total = batch * n * (most + response) / 1e6
    yield "tokens", f"a prompt {longest}, limit {limit}; a response {response}; at most {total:.2f} million a step"


def _memory(row: Need) -> str:
    training = row.weights + row.gradients + row.adam + row.activations
    text = f"training {training:.0f} GiB a GPU, of which activations {row.activations:.0f} are estimated"
    if row.cache_tokens:
        generation = row.resting + row.vllm_weights + row.vllm_cache
        text += f"; generation {generation:.0f} GiB with room for {row.cache_tokens / 1e6:.2f} million tokens"
    fits = "" if row.peak <= GPU else f". TOO MUCH for a GPU of {GPU} GiB"
    return text + (f"; host {row.host:.0f} GiB a node" if row.host else "") + fits


def _checkpoints(stage: Stage, launch: Launch, size: int | None) -> str:
    trainer: Any = launch.config["trainer"]
    steps, every = launch.steps, trainer["save_freq"]
    kept = trainer["max_ckpt_to_keep"] if stage == "sft" else trainer["max_actor_ckpt_to_keep"]
    number = (steps + every - 1) // every if steps and every > 0 else 1
    number = min(number, kept) if kept else number
    interval = f"every {every} steps" if every > 0 and (not steps or every < steps) else "at the end"
    text = f"{interval}, {number} on disk" + (" (older ones are removed)" if kept else "")
    if size:
        parent = next(folder for folder in launch.folder.parents if folder.is_dir())
        free = shutil.disk_usage(parent).free
        text += f"; {size / GIB:.3g} GiB each, {number * size / GIB:.3g} GiB in all, free here: {free / GIB:.0f} GiB"
    return text
