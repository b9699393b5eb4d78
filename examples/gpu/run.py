"""Measurements on a GPU, in stages. A stage that has written OUT/STAGE/result.json is not run again.

photos     writes rendered rooms as colour and depth files
steps      GRPO on all five tasks: time of each phase, shares of waiting for data and rewards; step times of our dataset
           and of verl's dataset on an export of the same samples, in turns
resume     resumes the same run: does it continue with the right samples?
recipe     a step of a 3B model with random weights, with the recipe for one GPU
learning   a pretrained model of 20 to 80 million parameters: cold start, GRPO, validation accuracy before and after

Set A is photos, steps, resume; set B is photos, recipe, learning.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / "recipes"), str(HERE)]

from stages import DRY, GPU, SETS, STAGES  # noqa: E402


def main() -> None:
    """Run the missing stages, each in a process of its own, and write all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument(
        "--minutes", type=float, default=25, help="limit for this call; a stage that exceeds it is run again"
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--set", choices=SETS, help="the stages of one call; instead of --only")
    parser.add_argument("--pairs", type=int, help="of steps in `steps`")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU: a tiny model, few steps")
    parser.add_argument(
        "--engine", choices=("vllm", "transformers"), help="of rollouts; vllm, in a dry run transformers"
    )
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # for the process of a stage
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    scale = DRY if arguments.dry_run else GPU
    changes = {"pairs": arguments.pairs, "engine": arguments.engine}
    scale = replace(scale, **{key: value for key, value in changes.items() if value})
    only = SETS[arguments.set] if arguments.set else arguments.only
    if arguments.stage:
        folder = out / arguments.stage
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        facts = STAGES[arguments.stage](out, scale)
        facts["seconds"] = round(time.monotonic() - begin, 1)
        (folder / "result.json").write_text(json.dumps(facts, indent=1))
        return
    deadline = time.monotonic() + 60 * arguments.minutes
    results: dict[str, Any] = {"machine": machine(), "dry_run": arguments.dry_run}
    for stage in only:
        done = out / stage / "result.json"
        reason = None if done.exists() else attempt(stage, out, sys.argv[1:], seconds=deadline - time.monotonic())
        results[stage] = {"missing": reason} if reason else json.loads(done.read_text())
        print(f"{stage}: {json.dumps(results[stage])}", flush=True)
        (out / "results.json").write_text(json.dumps(results, indent=1))
    plot(results, out)
    missing = [stage for stage in only if "missing" in results[stage]]
    print(f"{out / 'results.json'}" + (f"; start it again for {', '.join(missing)}" if missing else ""))
    sys.exit(bool(missing))


def attempt(stage: str, out: Path, arguments: list[str], *, seconds: float) -> str | None:
    """Run a stage in a process of its own. Returns why it has no result, or None."""
    if seconds < 5:
        return "no time left"
    (out / stage).mkdir(parents=True, exist_ok=True)
    log = out / stage / "stage.log"
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--stage", stage],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the stage can be ended with its child processes
        )
        try:
            code = process.wait(timeout=seconds)
        except BaseException as err:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(err, subprocess.TimeoutExpired):
                return "cut: no time left"
            raise
    return f"exit code {code}; see {log}" if code else None


def machine() -> dict[str, Any]:
    """Facts of the machine, and versions of packages."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    facts: dict[str, Any] = {"cpus": os.cpu_count(), "python": sys.version.split()[0]}
    facts["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    for package in ("verl", "vllm", "torch", "transformers", "ray"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = None
    return facts


def plot(results: dict[str, Any], out: Path) -> None:
    """Plot the phases of a step, paired step times, and accuracy over GRPO."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plots: matplotlib is not installed")
        return
    figure, (phases, pairs, curve) = pyplot.subplots(1, 3, figsize=(15, 4))
    for name in ("steps", "recipe"):
        if found := results.get(name, {}).get("phases_s"):
            phases.barh([f"{name}: {phase}" for phase in found], list(found.values()))
    phases.set(title="seconds of a step, by phase", xscale="log")
    if steps := results.get("steps", {}).get("steps_s"):
        from interleaved import is_ours

        for ours, name in ((True, "ours"), (False, "stock")):
            pairs.plot([time for step, time in enumerate(steps, 1) if is_ours(step) is ours][1:], label=name)
        pairs.legend()
    pairs.set(title="seconds of a step, interleaved", xlabel="pair")
    curve.plot(results.get("learning", {}).get("rollout_accuracy", []))
    curve.set(title="accuracy of the rollouts", xlabel="step of GRPO")
    figure.tight_layout()
    figure.savefig(out / "plots.png")


if __name__ == "__main__":
    main()
