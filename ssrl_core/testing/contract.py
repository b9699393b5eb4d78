"""Contract: requirements on samples, prompts, truths and the declared facts of a task."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from ..answers import extract_answer
from .criteria import Family, Trial, tokens
from .project import faults_of
from .report import Outcome

family = Family("contract")

SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
LONGEST_PROMPT = 4000


@family("hooks", "all four hooks are there, with arguments that pluggy passes", once=True)
def hooks(trial: Trial) -> Outcome:
    """``load_task`` checks the hooks, so a task that reaches this criterion has passed."""
    return Outcome(True, f"{trial.task.plugin} loads", "no problem found")


@family("levels", "at least one level, each with a chance in (0, 1) that fits its answers", once=True)
def levels(trial: Trial) -> Outcome:
    """The declared chance fits a uniform draw, and no answer is listed twice."""
    wrong = []
    for name, level in trial.task.info.levels.items():
        if not 0 < level.chance < 1:
            wrong.append(f"level {name!r}: chance {level.chance}")
        answers = level.answers or ()
        if len(set(answers)) != len(answers):
            wrong.append(f"level {name!r}: an answer is listed twice")
        kinds = Counter(len(tokens(answer)) for answer in answers)
        if answers and level.chance > 1 / min(kinds.values()) + 1e-9:
            wrong.append(f"level {name!r}: chance {level.chance:.4f} is above one of {min(kinds.values())} answers")
        if answers and level.chance < 1 / len(answers) - 1e-9:
            wrong.append(f"level {name!r}: chance {level.chance:.4f} is below one of {len(answers)} answers")
    return Outcome(not wrong, "; ".join(wrong) or f"{len(trial.task.info.levels)} levels", "nothing wrong")


@family("images", "RGB images of 16 to 4,096 pixels a side, one '<image>' in the prompt for each")
def images(trial: Trial) -> Outcome:
    """Image modes, image sizes and image marks of the samples in ``few``."""
    wrong = set()
    for made in trial.few:
        for image in made.sample.images:
            if image.mode != "RGB":
                wrong.add(f"mode {image.mode}")
            if not SMALLEST_SIDE <= min(image.size) <= max(image.size) <= LARGEST_SIDE:
                wrong.add(f"{image.width} x {image.height} pixels")
        if made.prompt.count("<image>") != len(made.sample.images):
            wrong.add(f"{made.prompt.count('<image>')} marks for {len(made.sample.images)} images")
    return Outcome(not wrong, ", ".join(sorted(wrong)) or f"{len(trial.few)} samples are so", "nothing else")


@family("truth", "the truth is one of the level's answers and survives the box of a completion")
def truth(trial: Trial) -> Outcome:
    """Extraction from a completion returns every truth unchanged."""
    lost = {t for t in set(trial.truths) if extract_answer(f"<think>x</think>\\boxed{{{t}}}") != t}
    answers = trial.level.answers
    unknown = set(trial.truths) - set(answers) if answers else set()
    wrong = [f"{t!r} is not among the answers" for t in sorted(unknown)[:3]]
    wrong += [f"{t!r} is not what a box of it gives" for t in sorted(lost)[:3]]
    return Outcome(not wrong, "; ".join(wrong) or f"{len(set(trial.truths))} different truths are so", "all")


@family("prompt", "the prompt is not empty, at most 4,000 characters, and does not depend on the truth")
def prompt(trial: Trial) -> Outcome:
    """Replacing only the truth of a sample does not change its prompt."""
    longest = max(len(row.prompt) for row in trial.natural)
    empty = any(not re.sub(r"<image>", "", row.prompt).strip() for row in trial.natural)
    others = list(dict.fromkeys(trial.truths))
    depends = sum(
        trial.task.format_prompt(replace(made.sample, truth=other)) != made.prompt
        for made in trial.few
        for other in others[:8]
    )
    return Outcome(
        not empty and longest <= LONGEST_PROMPT and not depends,
        f"at most {longest} characters, {depends} prompts changed with the truth" + (", some empty" if empty else ""),
        f"at most {LONGEST_PROMPT}, 0 changed",
        figures={"longest": longest, "depends": depends},
    )


@family("declared", "every declared failure names a criterion and a level that exist", once=True)
def declared(trial: Trial) -> Outcome:
    """A misspelt declaration would have no effect and no error."""
    unknown = []
    for key, reason in trial.task.info.known_failures.items():
        name, _, level = key.partition("@")
        if name not in trial.criteria or (level and level not in trial.task.info.levels) or not reason.strip():
            unknown.append(key)
    return Outcome(not unknown, ", ".join(unknown) or f"{len(trial.task.info.known_failures)} declared", "none unknown")


@family("description", "summary and README are about this task, and an index of packages can show them", once=True)
def description(trial: Trial) -> Outcome:
    """What users read before they install the task."""
    faults = list(faults_of(trial.task, lambda: trial.few[0].prompt))
    return Outcome(
        not faults,
        "; ".join(faults) or f"the texts of {trial.task.plugin.distribution} are so",
        "nothing wrong",
        remedy="mend README.md and pyproject.toml, and install again; give pictures the whole address, https://...",
    )
