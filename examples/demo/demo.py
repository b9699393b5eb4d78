"""A cold start and GRPO of a small model on all five tasks, on a CPU, with a report.

    python examples/demo/demo.py [--seed 1] [--out runs/demo]

``ssrl sft``, ``ssrl train`` and ``ssrl eval`` do the same. The model is that of ``examples/tiny_vlm``: it is pretrained
on procedural rooms, but not on the tasks.
"""

from __future__ import annotations

import argparse
import logging
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from report import finish, learned, lines
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ssrl_core.errors import SSRLError
from ssrl_core.evaluate import Sampling, Transformers, evaluate
from ssrl_core.mix import Mix, load_mix
from ssrl_core.verl.launch import Launch, prepare, run
from ssrl_core.verl.recipe import override

HERE = Path(__file__).parent
MODEL = HERE.parent / "tiny_vlm" / "model"
LONGEST_COMPLETION = 20
console = Console(highlight=False)


def main() -> None:
    """Run the demonstration and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples and the rollouts")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of all results")
    arguments = parser.parse_args()
    begin = time.monotonic()
    disable_progress_bar()
    torch.set_num_threads(1)  # the model is so small that threads only wait for each other
    # Before the cold start no completion has the form, which the evaluation would warn about.
    logging.getLogger("ssrl_core.evaluate.form").setLevel(logging.ERROR)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    mix_file = out / "mix.yaml"
    content = yaml.safe_load((HERE / "mix.yaml").read_text())
    mix_file.write_text(yaml.safe_dump(content | {"seed": arguments.seed}, sort_keys=False))
    heldout = load_mix(mix_file, split="heldout")

    say("1/5", "held-out accuracy of the pretrained model, which does not know the tasks")
    measure(MODEL, heldout, out / "eval" / "before")

    say("2/5", "cold start: verl's SFT trainer")
    folder = out / "sft"
    launch = prepare(
        "sft",
        HERE / "sft.yaml",
        [f"mix={mix_file}", override("model.path", MODEL), override("trainer.default_local_dir", folder)],
    )
    train(launch, "train/loss", "loss")
    cold = folder / f"global_step_{launch.steps}" / "huggingface"

    say("3/5", "held-out accuracy after the cold start")
    measure(cold, heldout, out / "eval" / "cold start")

    say("4/5", "GRPO: verl's PPO trainer on Ray (it starts up for about half a minute)")
    folder = out / "grpo"
    shutil.rmtree(folder / "rollouts", ignore_errors=True)  # of an earlier run
    launch = prepare(
        "grpo",
        HERE / "grpo.yaml",
        [
            f"mix={mix_file}",
            override("actor_rollout_ref.model.path", cold),
            f"actor_rollout_ref.rollout.seed={arguments.seed}",
            override("trainer.default_local_dir", folder),
            override("trainer.rollout_data_dir", folder / "rollouts"),
        ],
    )
    train(launch, "critic/score/mean", "reward")

    say("5/5", "held-out accuracy after GRPO")
    final = folder / f"global_step_{launch.steps}" / "actor" / "huggingface"
    measure(final, heldout, out / "eval" / "GRPO")

    minutes = (time.monotonic() - begin) / 60
    found = finish(out, minutes=minutes, cpu=cpu_minutes(), seed=arguments.seed)
    print("\nHeld-out accuracy of greedy answers; the interval is that after GRPO", lines(found), sep="\n")
    for sentence in learned(found):
        console.print(sentence)
    print(f"{minutes:.1f} minutes, {found.cpu:.1f} of CPU time. Look at {out / 'report.html'}")


def say(number: str, what: str) -> None:
    """Print a headline."""
    console.print(f"[bold]{number}  {what}[/bold]")


def cpu_minutes() -> float:
    """CPU time of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) / 60


def measure(model: Path, heldout: Mix, folder: Path) -> None:
    """Write the greedy answers to all held-out samples, and print a line."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    with console.status("") as status:
        answers = evaluate(
            heldout,
            Transformers(str(model), batch=128),
            folder,
            sampling=Sampling(max_tokens=LONGEST_COMPLETION),
            on_progress=lambda done, total: status.update(f"{done} of {total}"),
        ).answers
    right, formed = (sum(getattr(answer, key) == 1 for answer in answers) for key in ("acc", "format"))
    print(f"     {right} of {len(answers)} right, {formed} in the required form")


def train(launch: Launch, key: str, name: str) -> None:
    """Run verl; show a metric of each step in place, and print how it changed at the end."""
    values: list[float] = []
    with console.status("") as status:

        def show(step: int, metrics: Mapping[str, Any]) -> None:
            if metrics.get(key) is not None:
                values.append(metrics[key])
                status.update(f"step {step} of {launch.steps}, {name} {values[-1]:.3f}")

        code, lost, _, stopped = run(launch, on_step=show)
    if stopped:
        raise SystemExit(stopped)
    log = launch.folder / "log.txt"
    if code:
        tail = log.read_text(errors="replace").splitlines()[-30:]
        raise SystemExit("\n".join([*tail, f"verl ended with code {code}; see {log}"]))
    ends = [sum(part) / len(part) for part in (values[:3], values[-3:])]
    print(f"     {launch.steps} steps, mean {name} of the first three {ends[0]:.3f}, of the last three {ends[1]:.3f}")
    if lost:
        print(f"     the rollouts of {lost} prompts failed; see {log}")


if __name__ == "__main__":
    try:
        main()
    except SSRLError as err:
        sys.exit(f"demo: {err}")
