"""What the demonstration found, from its folder: a few lines for the terminal, and one self-contained HTML page.

python examples/demo/report.py runs/demo        prints the lines and writes the page again
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count, takewhile
from pathlib import Path
from statistics import mean

from jinja2 import Environment

from ssrl_core.cli.terminal import table
from ssrl_core.evaluate import ALL, Answer, Change, Row, answers_of, compare, rows
from ssrl_core.pages import data_url
from ssrl_core.sample import render
from ssrl_core.types import Recipe

STAGES = ("before", "cold start", "GRPO")
"""The folders of the evaluations."""


@dataclass(frozen=True)
class RolloutRates:
    """Means over the rollouts of one step: reward, accuracy, and share of completions with the required format."""

    step: int
    reward: float
    acc: float
    format: float

    @classmethod
    def read(cls, dump: Path, step: int) -> RolloutRates:
        """Reads verl's dump of the rollouts of a step. All scores must be 0, the format weight, or 1."""
        scores = [json.loads(line)["score"] for line in dump.read_text().splitlines()]
        return cls(step, mean(scores), mean(score > 0.999 for score in scores), mean(score > 0 for score in scores))


@dataclass(frozen=True)
class Found:
    """What a run of the demonstration found.

    Attributes:
        stages: stage -> task -> its held-out accuracy; the task with most samples first.
        changes: task -> the change from the cold start to GRPO.
        answers: the answers after GRPO.
        rates: of each step of GRPO.
        losses: of each step of the cold start.
        minutes, cpu: duration, and CPU time of all processes, in minutes.
    """

    stages: dict[str, dict[str, Row]]
    changes: dict[str, Change]
    answers: list[Answer]
    rates: list[RolloutRates]
    losses: list[float]
    minutes: float
    cpu: float

    @classmethod
    def read(cls, folder: Path, *, minutes: float, cpu: float) -> Found:
        """What is in the folder of a run."""
        answers = {stage: answers_of(folder / "eval" / stage) for stage in STAGES}
        stages = {stage: by_task(answers[stage]) for stage in STAGES}
        changes = {change.task: change for change in compare(answers["cold start"], answers["GRPO"])}
        dumps = (folder / "grpo" / "rollouts" / f"{step}.jsonl" for step in count(1))
        rates = [RolloutRates.read(dump, step) for step, dump in enumerate(takewhile(Path.exists, dumps), start=1)]
        return cls(stages, changes, answers["GRPO"], rates, sft_losses(folder / "sft"), minutes, cpu)

    def to_json(self) -> dict[str, object]:
        """All figures as JSON values."""
        return {
            "minutes": round(self.minutes, 2),
            "cpu_minutes": round(self.cpu, 2),
            "learned": learned(self),
            "heldout": {
                stage: {task: asdict(row) for task, row in found.items()} for stage, found in self.stages.items()
            },
            "grpo_alone": {task: asdict(change) for task, change in self.changes.items()},
            "rollouts": [asdict(rate) for rate in self.rates],
        }


def by_task(answers: Sequence[Answer]) -> dict[str, Row]:
    """Task -> its accuracy, the task with most samples first."""
    found = [row for row in rows(answers) if row.task != ALL]
    return {row.task: row for row in sorted(found, key=lambda row: (-row.n, row.task))}


def sft_losses(folder: Path) -> list[float]:
    """The loss of each step of the cold start."""
    newest = max(folder.glob("metrics*.jsonl"), key=lambda path: path.stat().st_mtime)
    records = (json.loads(line)["data"] for line in newest.read_text().splitlines())
    return [record["train/loss"] for record in records if "train/loss" in record]


def learned(found: Found) -> list[str]:
    """The answer to "did it learn?" and what it rests on, a sentence each."""
    after = next(iter(found.stages["GRPO"].values()))
    first = [found.stages[stage][after.task].acc for stage in STAGES[:2]]
    change = found.changes[after.task]
    others = [row for row in found.stages["GRPO"].values() if row.task != after.task]
    above = [row.task for row in others if row.verdict == "above"]
    verdicts = {"better": "a significant gain", "worse": "a significant loss", "": "not significant by itself"}
    return [
        f"{'Yes' if after.verdict == 'above' else 'Not shown'}: after training the model is right in "
        f"{after.acc:.2f} of {after.n} held-out samples of {after.task}, [{after.low:.2f}, {after.high:.2f}]; "
        f"chance is {after.chance:.2f}.",
        f"Before the cold start this was {first[0]:.2f}, after it {first[1]:.2f}. GRPO alone: {change.difference:+.3f} "
        f"[{change.low:+.3f}, {change.high:+.3f}], {verdicts[change.verdict]} "
        f"(p = {change.p:.2g}, and {change.adjusted:.2g} corrected for all rows).",
        f"The other tasks have {min(row.n for row in others)} to {max(row.n for row in others)} samples each: "
        f"{', '.join(above) or 'none'} is above chance beyond doubt.",
    ]


def lines(found: Found) -> str:
    """The accuracies as a table, at most 80 characters wide."""
    header = ("task", "n", "chance", *STAGES, "[95%]", "verdict")
    cells = [header]
    for task, after in found.stages["GRPO"].items():
        accuracies = (f"{found.stages[stage][task].acc:.2f}" for stage in STAGES)
        interval = f"[{after.low:.2f}, {after.high:.2f}]"
        cells.append((task, str(after.n), f"{after.chance:.2f}", *accuracies, interval, after.verdict or "unclear"))
    return table(cells)


def write_report(path: Path, found: Found) -> None:
    """Write the page."""
    samples = []
    for task in found.stages["GRPO"]:
        of_task = [answer for answer in found.answers if answer.task == task]
        right = [answer for answer in of_task if answer.acc]
        wrong = [answer for answer in of_task if not answer.acc]
        samples += [_sample(answer) for answer in (*right[:1], *wrong[:1])]
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    path.write_text(
        page.render(found=found, learned=learned(found), curves=_curves(found.rates, found.losses), samples=samples),
        encoding="utf-8",
    )


def _sample(answer: Answer) -> dict[str, object]:
    return {
        "task": answer.task,
        "prompt": answer.prompt,
        "images": [data_url(image) for image in render(Recipe.from_json(answer.recipe)).images],
        "completion": answer.completion,
        "truth": answer.truth,
        "right": bool(answer.acc),
        "score": answer.score,
    }


def _curves(rates: Sequence[RolloutRates], losses: Sequence[float]) -> list[str]:
    """Two plots as SVG: losses of the cold start, and rates of GRPO."""
    from matplotlib.figure import Figure

    figures = [Figure(figsize=(5, 3.2), layout="constrained") for _ in range(2)]
    left, right = (figure.subplots() for figure in figures)
    left.plot(range(1, len(losses) + 1), losses, color="#777777")
    left.set(title="Cold start", xlabel="step", ylabel="loss", ylim=(0, None))
    steps = [rate.step for rate in rates]
    right.plot(steps, [rate.format for rate in rates], label="required format", color="#4477aa")
    right.plot(steps, [rate.acc for rate in rates], label="right answer", color="#228833")
    right.plot(steps, [rate.reward for rate in rates], label="reward", color="#cc3311", linewidth=2.2)
    right.set(title="GRPO: mean over the rollouts of a step", xlabel="step", ylim=(0, 1.02))
    right.legend(frameon=False)
    plots = []
    for figure, axes in zip(figures, (left, right), strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        plots.append(buffer.getvalue()[buffer.getvalue().index("<svg") :])
    return plots


def finish(folder: Path, *, minutes: float, cpu: float, seed: int) -> Found:
    """Write ``results.json`` and ``report.html`` of a run, and return what they say."""
    found = Found.read(folder, minutes=minutes, cpu=cpu)
    (folder / "results.json").write_text(json.dumps({"seed": seed, **found.to_json()}, indent=1))
    write_report(folder / "report.html", found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a finished run, such as runs/demo")
    folder = parser.parse_args().folder
    known = json.loads((folder / "results.json").read_text())
    facts = {"minutes": known["minutes"], "cpu": known["cpu_minutes"], "seed": known["seed"]}
    found = finish(folder, **facts)
    print(lines(found), "", *learned(found), sep="\n")


if __name__ == "__main__":
    main()
