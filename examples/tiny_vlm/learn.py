"""Does GRPO teach the small model the five tasks? Three seeds, a probe, and ablations, with one command.

    python examples/tiny_vlm/learn.py --out runs/learn [--only main no_cold_start ...] [--seeds 1 2 3]

Every experiment is a cold start (SFT), then GRPO, both by verl, with held-out accuracy in between: sampled as in
training, and greedily. What is there is not done again. ``--out`` gets ``results.json``, ``table.txt`` and plots.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from probe import CHANCE, ask, questions
from transformers.utils.logging import disable_progress_bar

from ssrl_core.evaluate import Sampling, Transformers, compare, evaluate, rows
from ssrl_core.mix import load_mix
from ssrl_core.verl.launch import prepare, run
from ssrl_core.verl.progress import StepLine

HERE = Path(__file__).parent
TASKS = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
SAMPLINGS = {"sampled": Sampling(temperature=1.0, max_tokens=20), "greedy": Sampling(temperature=0.0, max_tokens=20)}


@dataclass(frozen=True)
class Experiment:
    """How the GRPO of a run differs from the main one.

    Attributes:
        tasks: what is changed in the tasks of mix.yaml.
        schedule: the mix's schedule.
        only: the one task that is kept.
        level: of the evaluation.
        cold: whether there is a cold start (on the unchanged mix).
        seeds: how many of the seeds are run.
    """

    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schedule: list[dict[str, Any]] | None = None
    only: str | None = None
    level: int = 1
    cold: bool = True
    seeds: int = 1

    def changed(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The mix that GRPO trains on."""
        tasks = {name: facts | self.tasks.get(name, {}) for name, facts in base["tasks"].items()}
        kept = tasks if self.only is None else {self.only: tasks[self.only]}
        return {**base, "tasks": kept} | ({"schedule": self.schedule} if self.schedule else {})

    def heldout(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The mix that is evaluated: all tasks alike."""
        return {**base, "tasks": {name: {"level": self.level} for name in base["tasks"]}}


PARTIAL = ("shuffled_patches", "flipped_patch", "depth_ordering")
SECOND = {key: {"level": 2} for key in TASKS}
EXPERIMENTS = {
    "main": Experiment(seeds=3),
    "no_cold_start": Experiment(cold=False),
    "partial_credit": Experiment(tasks={key: {"options": {"partial_credit": True}} for key in PARTIAL}),
    "one_task": Experiment(only="depth_ordering"),
    "second_level": Experiment(tasks=SECOND, level=2),
    "schedule": Experiment(tasks=SECOND, level=2, schedule=[{"until": 0.5, "level": 1}]),
}


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--out", type=Path, default=Path("runs/learn"))
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cold-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=60, help="of GRPO")
    arguments = parser.parse_args()
    disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.model.resolve()
    asked = questions(200)
    results: dict[str, Any] = {"pretrained": {"probe": probed(arguments.out / "probe.json", model, asked)}}
    for name in arguments.only:
        experiment = EXPERIMENTS[name]
        for seed in arguments.seeds[: experiment.seeds]:
            results[f"{name}/{seed}"] = conduct(arguments, name, experiment, model, seed, asked)
            (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    (arguments.out / "table.txt").write_text(text := table(results))
    print(text)


def conduct(
    arguments: argparse.Namespace, name: str, experiment: Experiment, model: Path, seed: int, asked: list[Any]
) -> dict[str, Any]:
    """One experiment with one seed: what was measured after the cold start and after GRPO."""
    base = yaml.safe_load((HERE / "mix.yaml").read_text()) | {"seed": seed}
    cold_folder, folder = arguments.out / f"cold-{seed}", arguments.out / f"{name}-{seed}"
    cold = model
    if experiment.cold:
        cold = trained(
            "sft",
            write(cold_folder, "mix", {"include": str(HERE / "cold.yaml"), "seed": seed}),
            cold_folder,
            [f"model.path={model}", f"trainer.total_training_steps={arguments.cold_steps}"],
        )
    samples = arguments.steps * yaml.safe_load((HERE / "grpo.yaml").read_text())["data"]["train_batch_size"]
    mix = write(folder, "mix", experiment.changed(base | {"samples": samples}))
    after = trained(
        "grpo",
        mix,
        folder,
        [
            f"actor_rollout_ref.model.path={cold}",
            f"actor_rollout_ref.rollout.seed={seed}",
            f"trainer.total_training_steps={arguments.steps}",
            f"trainer.save_freq={arguments.steps}",
        ],
    )
    heldout = load_mix(write(folder, "heldout", experiment.heldout(base)), split="heldout")
    result: dict[str, Any] = {"rewards": rewards(folder)}
    before_folder = cold_folder if experiment.cold else arguments.out / "pretrained"
    for way, sampling in SAMPLINGS.items():
        stages = {}
        for stage, weights, where in (("before", cold, before_folder), ("after", after, folder)):
            place = where / f"eval-{way}-level{experiment.level}-{seed}"
            stages[stage] = evaluate(heldout, Transformers(str(weights)), place, sampling=sampling).answers
            result[f"{way} {stage}"] = [asdict(row) for row in rows(stages[stage])]
        result[f"{way} change"] = [asdict(row) for row in compare(stages["before"], stages["after"])]
    form = " " + heldout.config.instruction
    result["probe before"] = probed(before_folder / "probe.json", cold, asked, instruction=form)
    result["probe after"] = probed(folder / "probe.json", after, asked, instruction=form)
    return result


def write(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """The mix in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return path


def trained(kind: str, mix: Path, folder: Path, overrides: list[str]) -> Path:
    """The model that verl's trainer leaves; trained only where it is not there yet."""
    launch = prepare(
        kind, HERE / f"{kind}.yaml", [f"mix={mix}", f"trainer.default_local_dir={folder / kind}", *overrides]
    )
    below = "huggingface" if kind == "sft" else "actor/huggingface"
    result = folder / kind / f"global_step_{launch.steps}" / below
    if not (result / "config.json").exists():
        code, lost = run(launch, on_step=StepLine(launch.steps))
        if code or lost or not (result / "config.json").exists():
            raise SystemExit(f"verl ended with code {code}, {lost} prompts failed; see {launch.folder / 'log.txt'}")
    return result.resolve()


def rewards(folder: Path) -> list[float]:
    """Mean reward of every step of GRPO."""
    newest = max((folder / "grpo").glob("metrics*.jsonl"), key=lambda path: path.stat().st_mtime)
    records = (json.loads(line)["data"] for line in newest.read_text().splitlines())
    return [record["critic/score/mean"] for record in records if "critic/score/mean" in record]


def probed(path: Path, model: Path, asked: list[Any], *, instruction: str = "") -> dict[str, float]:
    """Right answers to the unseen questions; kept in a file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ask(model, asked, instruction=instruction)))
    return dict(json.loads(path.read_text()))


def table(results: Mapping[str, Any]) -> str:
    """Everything that was measured, for people."""
    lines = []
    for name, result in results.items():
        if "rewards" not in result:
            continue
        lines.append(f"\n{name}: reward of the first and last 5 steps {_mean(result['rewards'][:5]):.3f} "
                     f"{_mean(result['rewards'][-5:]):.3f}")  # fmt: skip
        for way in SAMPLINGS:
            lines.append(
                f"  {way:18} {'n':>4} chance  before [95%]        after [95%]         change [95%]  adjusted p"
            )
            stages = (result[f"{way} {stage}"] for stage in ("before", "after", "change"))
            for before, after, change in zip(*stages, strict=True):
                cells = [f"{row['acc']:.3f} [{row['low']:.3f} {row['high']:.3f}]" for row in (before, after)]
                moved = f"{change['difference']:+.3f} [{change['low']:+.3f} {change['high']:+.3f}]"
                lines.append(f"  {before['task']:18} {before['n']:4} {before['chance']:6.3f}  {'  '.join(cells)}"
                             f"  {moved}"
                             f"  {change['adjusted']:.1g}")  # fmt: skip
    lines.append(
        "\nprobe, 200 questions of each kind, greedily: " + ", ".join(f"{k} (chance {v})" for k, v in CHANCE.items())
    )
    for name, result in results.items():
        for key, shares in result.items():
            if key.startswith("probe"):
                lines.append(f"  {name + ' ' + key:30} " + "  ".join(f"{shares[kind]:.3f}" for kind in CHANCE))
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
