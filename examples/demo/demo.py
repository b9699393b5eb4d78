"""A cold start and GRPO of a small model on all five tasks, on a CPU, with a report.

    python examples/demo/demo.py [--seed 1] [--out runs/demo]

``ssrl sft``, ``ssrl train`` and ``ssrl eval`` do the same. The model is that of ``examples/tiny_vlm``: it is pretrained
on procedural rooms, but not on the tasks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import yaml
from report import RolloutRates, write_report
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from ssrl_core.errors import SSRLError
from ssrl_core.evaluate import ALL, Answer, Row, Sampling, Transformers, evaluate, rows
from ssrl_core.mix import Mix, load_mix
from ssrl_core.verl.launch import Launch, prepare, run
from ssrl_core.verl.progress import StepLine
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
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    mix_file = out / "mix.yaml"
    content = yaml.safe_load((HERE / "mix.yaml").read_text())
    mix_file.write_text(yaml.safe_dump(content | {"seed": arguments.seed}, sort_keys=False))
    heldout = load_mix(mix_file, split="heldout")

    say("1/5", "held-out accuracy of the pretrained model")
    before = measure(MODEL, heldout, out / "eval" / "before")

    say("2/5", "cold start: verl's SFT trainer")
    folder = out / "sft"
    launch = prepare(
        "sft",
        HERE / "sft.yaml",
        [f"mix={mix_file}", override("model.path", MODEL), override("trainer.default_local_dir", folder)],
    )
    train(launch)
    cold = folder / f"global_step_{launch.steps}" / "huggingface"

    say("3/5", "held-out accuracy after the cold start")
    middle = measure(cold, heldout, out / "eval" / "cold start")

    say("4/5", "GRPO: verl's PPO trainer on Ray (it starts up for about half a minute)")
    folder = out / "grpo"
    rollouts = folder / "rollouts"
    launch = prepare(
        "grpo",
        HERE / "grpo.yaml",
        [
            f"mix={mix_file}",
            override("actor_rollout_ref.model.path", cold),
            f"actor_rollout_ref.rollout.seed={arguments.seed}",
            override("trainer.default_local_dir", folder),
            override("trainer.rollout_data_dir", rollouts),
        ],
    )
    train(launch)

    say("5/5", "held-out accuracy after GRPO")
    final = folder / f"global_step_{launch.steps}" / "actor" / "huggingface"
    after = measure(final, heldout, out / "eval" / "GRPO")

    summaries = {"before": by_task(before), "cold start": by_task(middle), "GRPO": by_task(after)}
    rates = [RolloutRates.read(rollouts / f"{step}.jsonl", step) for step in range(1, (launch.steps or 0) + 1)]
    console.print(table(summaries))
    console.print(rewards(rates))
    minutes = (time.monotonic() - begin) / 60
    write_report(out / "report.html", summaries, rates, sft_losses(out / "sft"), after, minutes=minutes)
    results = {
        "seed": arguments.seed,
        "minutes": round(minutes, 2),
        "heldout": {stage: {task: asdict(s) for task, s in tasks.items()} for stage, tasks in summaries.items()},
        "rollouts": [asdict(rate) for rate in rates],
    }
    (out / "results.json").write_text(json.dumps(results, indent=1))
    console.print(f"{minutes:.1f} minutes. Look at {out / 'report.html'}")


def say(number: str, what: str) -> None:
    """Print a headline."""
    console.print(f"\n[bold]{number}  {what}[/bold]")


def measure(model: Path, heldout: Mix, folder: Path) -> list[Answer]:
    """The answers to all held-out samples, sampled at the temperature of training."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    with console.status("") as status:
        return evaluate(
            heldout,
            Transformers(str(model)),
            folder,
            sampling=Sampling(temperature=1.0, max_tokens=LONGEST_COMPLETION),
            on_progress=lambda done, total: status.update(f"{done} of {total}"),
        ).answers


def by_task(answers: list[Answer]) -> dict[str, Row]:
    """Task -> its accuracy."""
    return {row.task: row for row in rows(answers) if row.task != ALL}


def train(launch: Launch) -> None:
    """Run verl and print a line for each step."""
    code, lost, _, stopped = run(launch, on_step=StepLine(launch.steps))
    if lost:
        console.print(f"the rollouts of {lost} prompts failed; see {launch.folder / 'log.txt'}")
    if stopped:
        raise SystemExit(stopped)
    if code:
        tail = (launch.folder / "log.txt").read_text(errors="replace").splitlines()[-30:]
        raise SystemExit("\n".join([*tail, f"verl ended with code {code}; see {launch.folder / 'log.txt'}"]))


def table(summaries: dict[str, dict[str, Row]]) -> Table:
    """Held-out accuracy and format rate by task and stage."""
    result = Table(title="Held-out accuracy (format)", caption="format: share of completions with the required format")
    result.add_column("task", no_wrap=True)
    result.add_column("n", justify="right")
    result.add_column("chance", justify="right")
    for stage in summaries:
        result.add_column(stage, justify="right", no_wrap=True)
    for task, first in summaries["before"].items():
        cells = [f"{tasks[task].acc:.2f} ({tasks[task].format:.2f})" for tasks in summaries.values()]
        result.add_row(task, str(first.n), f"{first.chance:.2f}", *cells)
    cells = [
        f"{mean(s.acc for s in tasks.values()):.2f} ({mean(s.format for s in tasks.values()):.2f})"
        for tasks in summaries.values()
    ]
    chance = mean(s.chance for s in summaries["before"].values())
    result.add_row("mean", "", f"{chance:.2f}", *cells, style="bold")
    return result


def rewards(rates: list[RolloutRates]) -> str:
    """Reward, accuracy and format rate of the first and the last 3 steps of GRPO, as text."""

    def line(name: str, part: list[RolloutRates]) -> str:
        values = (mean(getattr(rate, key) for rate in part) for key in ("reward", "acc", "format"))
        return "{}: reward {:.3f} = accuracy {:.3f} x 0.9 + format {:.3f} x 0.1".format(name, *values)

    return f"{line('first 3 steps', rates[:3])}\n{line('last 3 steps ', rates[-3:])}"


def sft_losses(folder: Path) -> list[float]:
    """The loss of each step of the cold start."""
    newest = max(folder.glob("metrics*.jsonl"), key=lambda path: path.stat().st_mtime)
    records = (json.loads(line)["data"] for line in newest.read_text().splitlines())
    return [record["train/loss"] for record in records if "train/loss" in record]


if __name__ == "__main__":
    try:
        main()
    except SSRLError as err:
        sys.exit(f"demo: {err}")
