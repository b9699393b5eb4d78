"""Measures what a cold start and GRPO teach the small model: several seeds, transfer, and ablations.

    python examples/tiny_vlm/learn.py --out runs/learn [--only main no_cold_start ...] [--seeds 1 2 3]

Each experiment is a cold start (SFT) and GRPO, both with verl. Held-out accuracy is measured before and after GRPO,
with sampling as in training and greedily. Existing results are kept. Writes ``results.json``, ``table.txt`` and plots.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from probe import Question, ask, questions
from transformers.utils.logging import disable_progress_bar

from ssrl_core.evaluate import ALL, Answer, Sampling, Transformers, compare, evaluate, rows
from ssrl_core.mix import load_mix
from ssrl_core.verl.launch import prepare, run
from ssrl_core.verl.progress import StepLine
from ssrl_core.verl.recipe import override

HERE = Path(__file__).parent
FORM = yaml.safe_load((HERE / "sft.yaml").read_text())["data"]["completion"]
TASKS = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
TAUGHT = ("shuffled_patches", "flipped_patch", "depth_ordering")  # by the cold start; the tasks of rl.yaml
SAMPLINGS = {"sampled": Sampling(temperature=1.0, max_tokens=20), "greedy": Sampling(temperature=0.0, max_tokens=20)}

PROBES = ("probe in the form of the tasks", "probe as the lessons ask")
WAYS = (*SAMPLINGS, *PROBES)

Answered = dict[str, tuple[list[Answer], list[Answer]]]
"""Way of answering -> the answers before and after GRPO."""


@dataclass(frozen=True)
class Experiment:
    """The difference of an experiment to the main one.

    Attributes:
        tasks: changes of the tasks of rl.yaml.
        schedule: schedule of the mix.
        only: the only task of the mix; None for all.
        level: of the evaluation.
        cold: whether there is a cold start, on the unchanged mix.
        share: of the steps of the main experiment. The baseline of the ablations, "short", has the same share.
        seeds: number of seeds.
    """

    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schedule: list[dict[str, Any]] | None = None
    only: str | None = None
    level: int = 1
    cold: bool = True
    share: float = 0.3
    seeds: int = 1

    def mix(self, seed: int, samples: int) -> dict[str, Any]:
        """The mix of GRPO."""
        tasks: dict[str, Any] = dict(self.tasks)
        if self.only is not None:
            tasks |= {name: False for name in TAUGHT if name != self.only}
        mix = {"include": str(HERE / "rl.yaml"), "seed": seed, "samples": samples, "tasks": tasks}
        return mix | ({"schedule": self.schedule} if self.schedule else {})

    def heldout(self, seed: int) -> dict[str, Any]:
        """The mix of the evaluation: all tasks with equal weights."""
        tasks = {name: {"weight": 1, "level": self.level} for name in TASKS}
        return {"include": str(HERE / "mix.yaml"), "seed": seed, "tasks": tasks}


SECOND = {key: {"level": 2} for key in TAUGHT}
EXPERIMENTS = {
    "main": Experiment(share=1, seeds=3),
    "short": Experiment(),
    "no_cold_start": Experiment(cold=False, share=0.1),
    "partial_credit": Experiment(tasks={key: {"options": {"partial_credit": True}} for key in TAUGHT}),
    "one_task": Experiment(only="depth_ordering"),
    "second_level": Experiment(tasks=SECOND, level=2),
    "schedule": Experiment(tasks=SECOND, level=2, schedule=[{"until": 0.5, "level": 1}]),
}


def main() -> None:
    """Run all experiments that have no result yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--out", type=Path, default=Path("runs/learn"))
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cold-steps", type=int, default=450)
    parser.add_argument("--steps", type=int, default=80, help="of GRPO, in the main experiment")
    arguments = parser.parse_args()
    disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.model.resolve()
    results: dict[str, Any] = {}
    for name in arguments.only:
        experiment, answered = EXPERIMENTS[name], list[Answered]()
        for seed in arguments.seeds[: experiment.seeds]:
            results[f"{name}/{seed}"], answers = conduct(arguments, name, experiment, model, seed)
            answered.append(answers)
        if len(answered) > 1:
            results[f"{name}/together"] = {way: measured(*pooled(answered, way)) for way in WAYS}
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    (arguments.out / "table.txt").write_text(text := table(results))
    plot(results, arguments.out / "learning.png")
    print(text)


def conduct(
    arguments: argparse.Namespace, name: str, experiment: Experiment, model: Path, seed: int
) -> tuple[dict[str, Any], Answered]:
    """The results of one experiment with one seed, and the answers after the cold start and after GRPO."""
    cold_folder, folder = arguments.out / f"cold-{seed}", arguments.out / f"{name}-{seed}"
    cold = model
    if experiment.cold:
        cold = trained(
            "sft",
            write(cold_folder, "mix", {"include": str(HERE / "cold.yaml"), "seed": seed}),
            cold_folder,
            [override("model.path", model), f"trainer.total_training_steps={arguments.cold_steps}"],
        )
    steps = round(arguments.steps * experiment.share)
    samples = steps * yaml.safe_load((HERE / "grpo.yaml").read_text())["data"]["train_batch_size"]
    mix = write(folder, "mix", experiment.mix(seed, samples))
    after = trained(
        "grpo",
        mix,
        folder,
        [
            override("actor_rollout_ref.model.path", cold),
            f"actor_rollout_ref.rollout.seed={seed}",
            f"trainer.total_training_steps={steps}",
            f"trainer.save_freq={steps}",
        ],
    )
    heldout = load_mix(write(folder, "heldout", experiment.heldout(seed)), split="heldout")
    before_folder = cold_folder if experiment.cold else arguments.out / "pretrained"
    stages = ((cold, before_folder), (after, folder))
    forms = {PROBES[0]: {"instruction": " " + heldout.config.instruction, "form": FORM}, PROBES[1]: {}}
    answers: Answered = {way: ([], []) for way in WAYS}
    for k, (weights, where) in enumerate(stages):
        for way, sampling in SAMPLINGS.items():
            place = where / f"eval-{way}-level{experiment.level}-{seed}"
            answers[way][k].extend(evaluate(heldout, Transformers(str(weights)), place, sampling=sampling).answers)
        for way, form in forms.items():
            answers[way][k].extend(probed(where / f"{way}-{seed}.jsonl", weights, seed, **form))
    result: dict[str, Any] = {way: measured(*answers[way]) for way in WAYS}
    result["rewards"] = rewards(folder)
    return result, answers


def pooled(answered: Sequence[Answered], way: str) -> tuple[list[Answer], list[Answer]]:
    """The answers of several seeds, before and after."""
    return [a for pair in answered for a in pair[way][0]], [a for pair in answered for a in pair[way][1]]


def measured(before: Sequence[Answer], after: Sequence[Answer]) -> list[dict[str, Any]]:
    """Accuracies of each task before and after GRPO, and of the taught tasks together."""
    found = [row for row in zip(rows(before), rows(after), compare(before, after), strict=True) if row[0].task != ALL]
    taught = [[answer for answer in answers if answer.task in TAUGHT] for answers in (before, after)]
    if taught[0]:
        found += list(zip(*map(rows, taught), compare(*taught), strict=True))[-1:]
    names = ("before", "after", "change")
    return [dict(zip(names, map(asdict, triple), strict=True)) for triple in found]


def write(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Write a mix into a file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return path


def trained(kind: str, mix: Path, folder: Path, overrides: list[str]) -> Path:
    """The folder of the model that a training run saves. Trains only if it does not exist."""
    launch = prepare(
        kind,
        HERE / f"{kind}.yaml",
        [f"mix={mix}", override("trainer.default_local_dir", folder / kind), *overrides],
    )
    below = "huggingface" if kind == "sft" else "actor/huggingface"
    result = folder / kind / f"global_step_{launch.steps}" / below
    if not (result / "config.json").exists():
        code, lost, _, stopped = run(launch, on_step=StepLine(launch.steps))
        if code or lost or not (result / "config.json").exists():
            raise SystemExit(
                stopped or f"verl ended with code {code}, {lost} prompts failed; see {launch.folder / 'log.txt'}"
            )
    return result.resolve()


def rewards(folder: Path) -> list[float]:
    """Mean reward of every step of GRPO."""
    newest = max((folder / "grpo").glob("metrics*.jsonl"), key=lambda path: path.stat().st_mtime)
    records = (json.loads(line)["data"] for line in newest.read_text().splitlines())
    return [record["critic/score/mean"] for record in records if "critic/score/mean" in record]


def probed(path: Path, model: Path, seed: int, **form: str) -> list[Answer]:
    """The answers to the questions of ``probe``; kept in a file."""
    if not path.exists():
        asked = unseen(seed)
        answers = []
        for k, (question, said) in enumerate(zip(asked, ask(model, asked, **form), strict=True)):
            right, chance = float(said == question.truth), 1 / len(question.choices)
            answers.append(
                Answer(
                    index=k, task=question.kind, level="", truth=question.truth, params={}, wrappers=(),
                    format_weight=0.0, thinking="required", opened=False, chance=chance,
                    recipe=f"{question.kind}, {k}, seed {seed}", prompt=question.text, completion=said, cut=False,
                    score=right, acc=right, format=1.0, error=0.0, pred=said,
                )
            )  # fmt: skip
        path.write_text("".join(answer.to_json() + "\n" for answer in answers))
    return [Answer(**json.loads(line)) for line in path.read_text().splitlines()]


@cache
def unseen(seed: int) -> list[Question]:
    """400 questions of each kind. Seeds have different questions, so that their answers can be pooled."""
    return questions(400, seed=seed)


def table(results: Mapping[str, Any]) -> str:
    """All results as a text table."""
    lines = []
    for name, result in results.items():
        lines.append(f"\n{name}" + (_rise(result["rewards"]) if "rewards" in result else ""))
        for way in [way for way in WAYS if way in result]:
            lines.append(
                f"  {way}\n  {'':18}    n chance  before [95%]         after [95%]          change [95%]  adjusted p"
            )
            for row in result[way]:
                before, after, change = row["before"], row["after"], row["change"]
                cells = "  ".join(f"{r['acc']:.3f} [{r['low']:.3f} {r['high']:.3f}]" for r in (before, after))
                moved = f"{change['difference']:+.3f} [{change['low']:+.3f} {change['high']:+.3f}]"
                task = "the taught ones" if before["task"] == "all" else before["task"]
                lines.append(f"  {task:18} {before['n']:4} {before['chance']:6.3f}  {cells}  {moved}"
                             f"  {change['adjusted']:.1g}")  # fmt: skip
    return "\n".join(lines)


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Plot rewards over the steps, and accuracy before and after GRPO."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for name, result in results.items():
        if rewards := result.get("rewards"):
            means = [_mean(rewards[max(0, k - 9) : k + 1]) for k in range(len(rewards))]
            left.plot(range(1, len(means) + 1), means, label=name, linewidth=2 if name.startswith("main") else 1)
    left.set(xlabel="step of GRPO", ylabel="reward, mean of the last ten steps")
    left.legend(fontsize="small")
    shown = results.get("main/together") or next((r for n, r in results.items() if n.startswith("main/")), None)
    for offset, stage in enumerate(("before", "after") if shown else ()):
        found = [row[stage] for row in shown["sampled"]]
        places = [k + 0.36 * offset for k in range(len(found))]
        shares = [row["acc"] for row in found]
        errors = [[row["acc"] - row["low"] for row in found], [row["high"] - row["acc"] for row in found]]
        label = ("after the cold start", "after GRPO")[offset]
        right.bar(places, shares, 0.34, yerr=errors, capsize=3, color=("#9ab", "#267")[offset], label=label)
    if shown:
        for k, row in enumerate(row["before"] for row in shown["sampled"]):
            right.hlines(row["chance"], k - 0.2, k + 0.56, color="black", linestyle=":")
        names = ["taught" if row["before"]["task"] == "all" else row["before"]["task"] for row in shown["sampled"]]
        right.set_xticks([k + 0.18 for k in range(len(names))], [name.replace("_", "\n") for name in names])
        right.set(ylabel="held-out accuracy, sampled (dotted: chance)")
        right.legend(fontsize="small")
    figure.savefig(path, dpi=90)


def _rise(rewards: Sequence[float]) -> str:
    ends = _mean(rewards[:10]), _mean(rewards[-10:])
    return ": reward of the first and last 10 steps {:.3f} {:.3f}".format(*ends)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
