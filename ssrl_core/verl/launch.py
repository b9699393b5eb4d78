"""Start verl's own entry points on a recipe, and follow them.

The composed configuration is written into the run's folder and handed to verl's unmodified entry point, so
``command.txt`` in that folder repeats the run without this module.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

import yaml

from ..errors import RecipeError
from ..mix.include import self_contained
from .checks import CHECKPOINTED, check_run, folder_of, has_checkpoints, plan_of
from .recipe import Stage, compose, override, read_recipe

_LOST = re.compile(rb"Error in _run_prompt for uid=\S+")  # verl writes it for each rollout of the prompt
_MODULE = {"sft": "verl.trainer.sft_trainer", "grpo": "verl.trainer.main_ppo"}


@dataclass(frozen=True)
class Launch:
    """A checked run that is ready to start.

    Attributes:
        argv: verl's command line.
        env: what is set in its environment besides the current one.
        config: verl's composed configuration.
        mix: path of the mix file.
        plan: see ``checks.plan_of``.
        folder: of the run: ``plan.json``, ``config.yaml``, ``mix.yaml`` (``mix-2.yaml``, ... of earlier runs there),
            ``command.txt``, ``log.txt``, ``metrics.jsonl``, checkpoints.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    config: Mapping[str, Any]
    mix: Path
    plan: Mapping[str, Any]
    folder: Path

    @property
    def steps(self) -> int | None:
        """Number of training steps, where the configuration says it."""
        steps: int | None = self.config["trainer"]["total_training_steps"]
        return steps

    def command(self) -> str:
        """The command as one would type it, once ``run`` has written the configuration."""
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.env.items()), shlex.join(self.argv)])


def prepare(stage: Stage, recipe: str | Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Launch:
    """Check a recipe, without writing anything.

    Args:
        stage: ``"sft"`` for the cold start, ``"grpo"`` for reinforcement learning.
        recipe: a YAML file.
        overrides: in Hydra's grammar, e.g. ``trainer.total_training_steps=10``; ``mix=FILE`` takes another mix,
            relative to the working directory.
        device: ``"cuda"`` or ``"cpu"``; what torch finds where absent.

    Raises:
        RecipeError: the recipe or an override names a key that verl does not have, lacks the mix, does not fit the
            prompts, or would continue another run.
        MixError, PluginError, SourceError: the mix cannot be used; found out by trying every task and level.
    """
    _require_verl()
    content = read_recipe(Path(recipe))
    mix = Path(content.pop("mix"))
    for given in [given for given in overrides if given.startswith("mix=")]:
        mix = Path(given.removeprefix("mix=")).resolve()
    overrides = [given for given in overrides if not given.startswith("mix=")]
    device = device or _device()
    config = compose(stage, content, overrides, mix=str(mix), device=device, where=str(recipe))
    folder = Path(config["trainer"]["default_local_dir"])
    check_run(stage, config, mix, folder)

    entry = ["-m", _MODULE[stage], f"--config-path={folder}", "--config-name=config"]
    entry += [override("hydra.run.dir", folder), "hydra.output_subdir=null"]
    env = {"VERL_FILE_LOGGER_PATH": str(_fresh(folder / "metrics.jsonl"))}
    env["TENSORBOARD_DIR"] = str(folder / "tensorboard")
    if stage == "sft":
        processes = config["trainer"]["n_gpus_per_node"]
        entry = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *entry]
    else:  # the process that logs is a worker of a Ray cluster, which need not have our environment
        entry += [override(f"++ray_kwargs.ray_init.runtime_env.env_vars.{name}", v) for name, v in env.items()]
    env |= {"HYDRA_FULL_ERROR": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_DEDUP_LOGS": "0"}
    env["RAY_USAGE_STATS_ENABLED"] = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    if device == "cpu":
        env["VERL_USE_EXTERNAL_MODULES"] = "ssrl_core.verl.platform"
        # A cold start prepares its images beside the training, where a second thread would only be in the way; in GRPO
        # policy and rollouts wait for each other, and the processes between them use one thread of their own accord.
        threads = 1 if stage == "sft" else min(2, os.cpu_count() or 1)
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        env["RAY_worker_niceness"] = "0"  # Ray starts workers at nice 15, and they are the whole run here
    return Launch((sys.executable, *entry), env, config, mix, plan_of(stage, config, mix), folder)


class Finished(NamedTuple):
    """How a run ended: verl's exit code, and the number of prompts whose rollouts failed (verl only logs them)."""

    code: int
    lost_prompts: int


def run(launch: Launch, *, on_step: Callable[[int, dict[str, Any]], None], echo: bool = False) -> Finished:
    """Run verl to its end. Its output is appended to ``log.txt``.

    Args:
        launch: from ``prepare``.
        on_step: called with the step and its metrics whenever verl logs them.
        echo: show verl's raw output as well.
    """
    launch.folder.mkdir(parents=True, exist_ok=True)
    with folder_of(launch.folder).locked():
        _write_inputs(launch)
        return _run(launch, on_step=on_step, echo=echo)


def _write_inputs(launch: Launch) -> None:
    """Write plan, mix, configuration and command into the run's folder."""
    # Without this, a later start would continue the checkpoints of an earlier run.
    if launch.config["trainer"].get("resume_mode") == "disable":
        (launch.folder / CHECKPOINTED).unlink(missing_ok=True)
    mix, kept = self_contained(launch.mix), launch.folder / "mix.yaml"
    if kept.exists() and kept.read_bytes() != mix:
        kept.rename(_fresh(kept))  # checkpoints may have been trained on it
    kept.write_bytes(mix)
    folder_of(launch.folder).settle(launch.plan, started=has_checkpoints(launch.config, launch.folder))
    (launch.folder / "config.yaml").write_text(yaml.safe_dump(dict(launch.config), sort_keys=False), encoding="utf-8")
    (launch.folder / "command.txt").write_text(launch.command() + "\n", encoding="utf-8")


def _run(launch: Launch, *, on_step: Callable[[int, dict[str, Any]], None], echo: bool) -> Finished:
    with open(launch.folder / "log.txt", "a+b", buffering=0) as log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            launch.argv,
            env={**os.environ, **launch.env},
            stdout=subprocess.PIPE if echo else log,
            stderr=subprocess.STDOUT,
        )
        tee = Thread(target=_tee, args=(process.stdout, log), daemon=True) if echo else None
        if tee:
            tee.start()
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
            if tee:
                tee.join(timeout=5)
        log.seek(begin)
        lost = {found[0] for line in log if (found := _LOST.search(line))}
        return Finished(process.returncode, len(lost))


def _require_verl() -> None:
    missing = [name for name in ("torch", "verl", "transformers", "hydra") if importlib.util.find_spec(name) is None]
    if missing:
        raise RecipeError(
            f"training needs {', '.join(missing)}: pip install 'ssrl-core[train]' (without a GPU), "
            "or 'ssrl-core[vllm]' (with one)"
        )


def _tee(output: IO[bytes], log: IO[bytes]) -> None:
    for line in output:
        log.write(line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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
