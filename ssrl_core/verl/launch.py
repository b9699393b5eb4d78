"""Starts verl's own entry points on a recipe, and reads their metrics.

The composed configuration is written into the folder of the run and passed to verl's unmodified entry point. The
command in ``command.txt`` of that folder therefore repeats the run without this module.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import IO, Any, NamedTuple

import yaml

from ..errors import RecipeError
from ..files import written_whole
from ..mix import load_mix
from ..mix.include import self_contained
from ..models.vllm import reason
from ..resume import name_holder
from .checks import (
    Tokens,
    check_engine,
    check_run,
    folder_of,
    has_checkpoints,
    plan_of,
    settle,
    steps_per_epoch,
    tell_vllm,
)
from .processes import Family, Stop, signals
from .recipe import Stage, compose, override, read_recipe
from .stopping import CHECKPOINTED, REQUEST, last_saved

logger = logging.getLogger(__name__)

RUN = "SSRL_RUN"
"""Environment variable of all workers of a run: a name that no other run has; see ``weights``."""

WANDB = "wandb-run.txt"
"""The file in a run's folder with the id of its run at W&B."""

RAY_STARTS = 3
"""Times that a run is started while Ray itself does not start."""

_RAY_LATE = b"The current node timed out during startup"  # on a busy machine; Ray waits 30 s, which cannot be set
_LOST = re.compile(rb"Error in _run_prompt for uid=\S+")  # verl logs this once for each rollout of a prompt
_TRAINED = {"training/global_step", "train/loss"}  # metrics that only a step has, not a validation
_MODULE = {"sft": "verl.trainer.sft_trainer", "grpo": "verl.trainer.main_ppo"}


@dataclass(frozen=True)
class Launch:
    """A checked run that is ready to start.

    Attributes:
        argv: verl's command line.
        env: environment variables that are set in addition to the current ones.
        config: verl's composed configuration.
        mix: path of the mix file.
        plan: see ``checks.plan_of``.
        folder: of the run. It gets ``plan.json``, ``config.yaml``, ``mix.yaml`` and ``metrics.jsonl`` (those of earlier
            runs are ``mix-2.yaml``, ...), ``command.txt``, ``log.txt`` and checkpoints.
        tokens: length of the longest prompt; see ``checks.check_length``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    config: Mapping[str, Any]
    mix: Path
    plan: Mapping[str, Any]
    folder: Path
    tokens: Tokens | None = None

    @property
    def metrics(self) -> Path:
        """The file to which verl appends its metrics: a line of JSON with ``step`` and ``data`` for each record."""
        return self.folder / "metrics.jsonl"

    @property
    def steps(self) -> int | None:
        """Number of training steps; None if the configuration does not state it."""
        steps: int | None = self.config["trainer"]["total_training_steps"]
        return steps

    def command(self) -> str:
        """The command as a line for a shell. It works once ``run`` has written the configuration."""
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.env.items()), shlex.join(self.argv)])


def prepare(stage: Stage, recipe: str | Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Launch:
    """A run that is ready to start, after all checks of its recipe. Writes nothing.

    Args:
        stage: ``"sft"`` for the cold start, ``"grpo"`` for reinforcement learning.
        recipe: path of a YAML file.
        overrides: in Hydra's grammar, e.g. ``trainer.total_training_steps=10``. ``mix=FILE`` names another mix,
            relative to the working directory.
        device: ``"cuda"`` or ``"cpu"``: the machine that will run it. If None, this one, with a GPU if torch finds one.
            On a machine without a GPU, ``"cuda"`` only checks, unless a Ray cluster runs it (ray_init.address).

    Raises:
        RecipeError: the recipe names no mix; the recipe or an override has a key that verl does not have, or an invalid
            value; a prompt is too long; or the run would continue checkpoints of another run.
        MixError, PluginError, SourceError: the mix cannot be used. Every task is tried at every level.
    """
    _require_verl()
    read = read_recipe(Path(recipe))
    mix = Path(read.content["mix"])
    for given in [given for given in overrides if given.startswith("mix=")]:
        mix = Path(given.removeprefix("mix=")).resolve()
    overrides = [given for given in overrides if not given.startswith("mix=")]
    here = _device()
    device = device or here
    config = compose(stage, read, overrides, mix=mix, device=device)
    folder = Path(config["trainer"]["default_local_dir"])
    examples, tokens = check_run(stage, config, mix, folder, elsewhere=device != here)
    if stage == "grpo":
        tell_vllm(config, examples)
    plan = plan_of(stage, config, mix)
    if has_checkpoints(config, folder):
        settle(plan, folder, continues=True)

    entry = ["-m", _MODULE[stage], f"--config-path={folder}", "--config-name=config"]
    entry += [override("hydra.run.dir", folder), "hydra.output_subdir=null"]
    env = {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"), "TENSORBOARD_DIR": str(folder / "tensorboard")}
    if "wandb" in config["trainer"]["logger"]:
        run = os.environ.get("WANDB_RUN_ID") or wandb_run(folder, continues=has_checkpoints(config, folder))
        env |= {"WANDB_RUN_ID": run, "WANDB_RESUME": "allow", "WANDB_DIR": str(folder)}
    if stage == "sft":
        processes = config["trainer"]["n_gpus_per_node"]
        entry = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *entry]
    else:  # the process that logs is a worker of a Ray cluster, which may have another environment
        env[RUN] = token_hex(8)
        entry += [override(f"++ray_kwargs.ray_init.runtime_env.env_vars.{name}", v) for name, v in env.items()]
    env |= {"HYDRA_FULL_ERROR": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_DEDUP_LOGS": "0"}
    env["RAY_USAGE_STATS_ENABLED"] = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    if device == "cpu":
        env["VERL_USE_EXTERNAL_MODULES"] = "ssrl_core.verl.platform"
        # A cold start prepares images in a second process, which needs a core. In GRPO, policy and rollouts take turns,
        # and the processes between them limit themselves to one thread.
        threads = 1 if stage == "sft" else min(2, os.cpu_count() or 1)
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        env["RAY_worker_niceness"] = "0"  # Ray's default of 15 gives the whole run less time than other programs get
    return Launch((sys.executable, *entry), env, config, mix, plan, folder, tokens)


class Finished(NamedTuple):
    """How a run ended.

    Attributes:
        code: verl's exit code. For a run that was stopped, 128 and the number of the signal, or 124 for its time limit.
        lost_prompts: number of prompts whose rollouts failed. verl only logs them.
        error: the first error in the log of a run that failed, if there is one.
        stopped: what ended the run before its last step, and how far it came, in words; empty if nothing did.
    """

    code: int
    lost_prompts: int
    error: str | None
    stopped: str = ""


def run(launch: Launch, *, on_step: Callable[[int, dict[str, Any]], None], echo: bool = False) -> Finished:
    """Run verl to its end. Its output is appended to ``log.txt``.

    In the main thread, SIGTERM, SIGINT and SIGHUP end verl and all of its processes, see ``processes.Stop``. Nothing of
    verl is left on this machine when this function returns or raises.

    Args:
        launch: from ``prepare``.
        on_step: called with the step and its metrics whenever verl logs them.
        echo: also copy verl's output to stdout.

    Raises:
        RecipeError: another process is working in the folder, or the run would continue checkpoints of another run.
    """
    trainer = launch.config["trainer"]
    cluster = launch.config.get("ray_kwargs", {}).get("ray_init", {}).get("address") or os.environ.get("RAY_ADDRESS")
    if trainer.get("device") == "cuda" and not cluster and _device() == "cpu":
        raise RecipeError("this machine has no GPU: --device cuda can only check the recipe here, with --dry-run")
    if "actor_rollout_ref" in launch.config:  # not a cold start
        check_engine(launch.config)
    launch.folder.mkdir(parents=True, exist_ok=True)
    with folder_of(launch.folder).locked() as lock, signals() as arrived:
        _write_inputs(launch)
        stop = Stop(launch.folder, arrived, save=trainer["save_on_signal"], limit=trainer["time_limit"])
        for _ in range(RAY_STARTS - 1):
            finished, ray_late = _run(launch, stop, lock, on_step=on_step, echo=echo)
            if finished.stopped or not (finished.code and ray_late):
                return finished
            logger.warning("Ray did not start within its time limit. Nothing was trained; the run is started again")
        return _run(launch, stop, lock, on_step=on_step, echo=echo)[0]


def _write_inputs(launch: Launch) -> None:
    """Write plan, mix, configuration and command into the folder of the run."""
    continues = has_checkpoints(launch.config, launch.folder)
    if continues and "actor_rollout_ref" not in launch.config:
        start_next_epoch(launch)
    if not continues:  # or a later start would continue a checkpoint that this run does not continue
        (launch.folder / CHECKPOINTED).unlink(missing_ok=True)
    settle(launch.plan, launch.folder, continues=continues)
    (launch.folder / REQUEST).unlink(missing_ok=True)
    if "WANDB_RUN_ID" in launch.env:
        (launch.folder / WANDB).write_text(launch.env["WANDB_RUN_ID"])
    if launch.metrics.exists():
        _keep_metrics(launch.metrics, until=last_saved(launch.folder) if continues else None)
    mix, kept = self_contained(launch.mix), launch.folder / "mix.yaml"
    if kept.exists() and kept.read_bytes() != mix:
        kept.rename(_fresh(kept))  # checkpoints may have been trained on it
    kept.write_bytes(mix)
    (launch.folder / "config.yaml").write_text(yaml.safe_dump(dict(launch.config), sort_keys=False), encoding="utf-8")
    (launch.folder / "command.txt").write_text(launch.command() + "\n", encoding="utf-8")


def start_next_epoch(launch: Launch) -> None:
    """Set the saved state of verl's dataloader aside if a cold start continues from the end of an epoch.

    verl 0.9.1 goes on with the epoch that has ended: it finds no row, and would train an epoch less, or nothing.
    """
    step = last_saved(launch.folder)
    if step and step % steps_per_epoch(launch.config, len(load_mix(launch.mix))) == 0:
        for state in (launch.folder / f"global_step_{step}").glob("data_*.pt"):
            state.rename(state.with_suffix(".ended"))


def _keep_metrics(path: Path, *, until: int | None) -> None:
    """Remove the records of later steps, which the run repeats. If ``until`` is None, rename another run's file."""
    if until is None:
        path.rename(_fresh(path))
        return
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    with written_whole(path) as file:
        file.writelines(line for line in whole if json.loads(line)["step"] <= until)


def _run(
    launch: Launch, stop: Stop, lock: IO[str], *, on_step: Callable[[int, dict[str, Any]], None], echo: bool
) -> tuple[Finished, bool]:
    """How the run ended, and whether Ray did not start."""
    with open(launch.folder / "log.txt", "a+b", buffering=0) as log:
        begin = log.seek(0, os.SEEK_END)
        env, output = {**os.environ, **launch.env}, subprocess.PIPE if echo else log
        with Family(launch.argv, env=env, output=output, lock=lock) as family:
            name_holder(lock, f"process {os.getpid()}, with verl in process {family.process.pid}, on {platform.node()}")
            tee = Thread(target=_tee, args=(family.process.stdout, log), daemon=True) if echo else None
            if tee:
                tee.start()
            trained = False
            for step, metrics in _follow(launch.metrics, family.process, stop.due):
                trained = True
                if metrics.keys() & _TRAINED:
                    stop.step = step
                on_step(step, metrics)
        if tee:
            tee.join(timeout=5)
        code = family.process.returncode
        if not (trained or code or stop.cause):
            logger.warning(
                "verl trained no step. The last checkpoint of %s may be the last step of the run", launch.folder
            )
        log.seek(begin)
        lost, ray_late = set(), False
        for line in log:
            ray_late = ray_late or _RAY_LATE in line
            if found := _LOST.search(line):
                lost.add(found[0])
        if stop.cause and not (stop.step and stop.step == launch.steps):
            return Finished(stop.code, len(lost), None, f"{stop.cause}: {_progress(launch, stop.step)}"), ray_late
        error = None
        if code:
            log.seek(begin)
            error = reason(log.read().decode(errors="replace"))
        return Finished(code, len(lost), error), ray_late


def _progress(launch: Launch, step: int | None) -> str:
    """How far a run came that was stopped, and what the same command does."""
    saved = last_saved(launch.folder)
    came = f"ended after step {step}" if step else "ended before a step"
    if saved is None:
        return f"{came}, without a checkpoint. The same command starts again"
    if launch.config["trainer"]["resume_mode"] != "auto":
        return f"{came}. The last checkpoint is of step {saved}; trainer.resume_mode=auto continues from it"
    return f"{came}. The last checkpoint is of step {saved}; the same command continues from it"


def wandb_run(folder: Path, *, continues: bool) -> str:
    """The id of the run at W&B: that of the folder for a run that continues, else a new one."""
    path = folder / WANDB
    return path.read_text() if continues and path.exists() else uuid.uuid4().hex[:8]


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
    """The path; with a number in its name if an earlier run has left a file there."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def _follow(
    path: Path, process: subprocess.Popen[bytes], due: Callable[[], bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Step and metrics of each record that is appended to a file, until the process ends, or must be ended."""
    read = path.stat().st_size if path.exists() else 0
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
        if running and due():
            return
        if running:
            time.sleep(0.3)
