"""``ssrl mix``: shares, sources, tokens, rejections and times of a mix.

Each task is bound by itself, so that an error in one task does not hide errors in the others.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..mix import few_images
from ..mix.file import MixConfig, Where, read_mix
from ..mix.schedule import SplitName, Stage, Turns, stages
from ..mix.tasks import BoundTask, bind_task
from ..models.loading import ModelError, load_processor
from ..models.tokens import FAMILIES, estimate_tokens, family_of, token_ids
from ..sample import Example
from .terminal import AsJson, counted, progress_bar, show, table

CountTokens = Callable[[Example], int]
_Bound = Mapping[SplitName, BoundTask]


def describe_mix(
    path: str | Path,
    *,
    trials: int = 40,
    model: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The facts of a mix, in plain JSON types. An error in a task is a fact of that task.

    Args:
        path: of the mix file.
        trials: samples to make of each task at each level.
        model: a folder or a name on the Hugging Face hub, whose processor counts the tokens of prompts. If the
            processor of a hub name cannot be loaded, tokens are estimated for the model's family. Without a model they
            are estimated for the first family in ``models.tokens.FAMILIES``.
        on_progress: called after each level with the number of samples tried so far and in all.

    Raises:
        MixError: the file cannot be read or is invalid.
        SSRLError: ``model`` is no folder with a processor, and no name of a known family.
    """
    config, composed = read_mix(path)
    planned = stages(config, split="train", where=composed.where)
    tested = stages(config, split="heldout", where=composed.where)
    (heldout,) = Turns(tested).counts
    count_tokens, how = _counter(model) if model else (estimate_tokens, f"estimated for {FAMILIES[0].name}")
    found = {name: _bind(name, config, {"train": planned, "heldout": tested}, composed.where) for name in config.tasks}
    described = [
        _stage(number, stage, dict(zip(config.tasks, counts, strict=True)), found)
        for number, (stage, counts) in enumerate(zip(planned, Turns(planned).counts, strict=True))
    ]
    total = trials * sum(len(bound["train"].levels) for bound in found.values() if not isinstance(bound, str))
    tried = 0
    tasks: dict[str, Any] = {}
    for (name, bound), tests in zip(found.items(), heldout, strict=True):
        samples = sum(stage["samples"][name] for stage in described)
        tasks[name] = {"share": samples / config.samples, "samples": samples, "heldout_samples": tests}
        if isinstance(bound, str):
            tasks[name]["error"] = bound
            continue
        train = bound["train"]
        tasks[name] |= {
            "distribution": f"{train.task.plugin.distribution} {train.task.plugin.version}",
            "seed": train.seed,
            "options": dict(train.options),
            "source": train.source_uri,
            "images": {split: task.images.count for split, task in bound.items()},
            "skipped": dict(getattr(train.source, "skipped", {})),
            "levels": {},
        }
        for level in train.levels:
            tasks[name]["levels"][level] = _trial(train, level, trials=trials, count_tokens=count_tokens)
            tried += trials
            on_progress(tried, total)
    return {
        "mix": str(composed.path),
        "files": [str(file) for file in composed.files],
        "samples": config.samples,
        "heldout_samples": config.heldout.samples,
        "size": config.size,
        "tokens": how,
        "stages": described,
        "tasks": tasks,
    }


def _bind(name: str, config: MixConfig, planned: Mapping[SplitName, list[Stage]], where: Where) -> _Bound | str:
    """The task in each split, or the message of the error that prevents it."""
    try:
        return {split: bind_task(name, config, parts, split=split, where=where) for split, parts in planned.items()}
    except SSRLError as err:
        return str(err)


def _stage(number: int, stage: Stage, samples: dict[str, int], found: Mapping[str, _Bound | str]) -> dict[str, Any]:
    """Bounds of a stage; samples and share of each task; shares of the levels of each task that could be bound."""
    shares = {name: bound["train"].shares for name, bound in found.items() if not isinstance(bound, str)}
    return {
        "start": stage.start,
        "end": stage.end,
        "samples": samples,
        "shares": {name: count / (stage.end - stage.start) for name, count in samples.items()},
        "levels": {name: by_stage[number].by_level() for name, by_stage in shares.items() if number in by_stage},
    }


def _trial(bound: BoundTask, level: str, *, trials: int, count_tokens: CountTokens) -> dict[str, Any]:
    before, error = Counter(bound.rejections), None
    tokens: list[int] = []
    seconds: list[float] = []
    for number in range(trials):
        begin = time.perf_counter()
        try:
            example = bound.make(number, level=level)
        except SSRLError as err:
            error = str(err)
            break
        seconds.append(time.perf_counter() - begin)
        tokens.append(count_tokens(example))
    rejected = bound.rejections - before
    offered = max(1, rejected.total() + len(tokens))
    facts: dict[str, Any] = {
        "trials": len(tokens),
        "rejected": rejected.total() / offered,
        "reasons": {reason: n / offered for reason, n in rejected.most_common()},
    }
    if tokens:
        # The first sample includes the time of imports and of filling caches.
        facts |= {"tokens": round(mean(tokens)), "most_tokens": max(tokens), "ms": 1000 * mean(seconds[1:] or seconds)}
    return facts | ({"error": error} if error else {})


def _counter(model: str) -> tuple[CountTokens, str]:
    """A function that counts the tokens of a prompt for a model, and the words that say how."""
    try:
        processor = load_processor(model)
    except ModelError as err:
        is_path = Path(model).exists() or model.startswith((".", "/", "~"))
        family = None if is_path else family_of(model)
        if family is None:
            raise SSRLError(f"--model {model}: {err}") from err
        return partial(estimate_tokens, family=family), f"estimated for {family.name}: the processor cannot be loaded"
    return lambda example: len(token_ids(processor, example)), "counted with the model"


def as_text(facts: Mapping[str, Any]) -> str:
    """The facts of ``describe_mix`` for a terminal."""
    return "\n".join(_lines(facts))


def errors(facts: Mapping[str, Any]) -> dict[str, str]:
    """The errors of a mix, by task or ``task@level``."""
    found = {}
    for name, task in facts["tasks"].items():
        for where, part in ((name, task), *((f"{name}@{level}", t) for level, t in task.get("levels", {}).items())):
            if "error" in part:
                found[where] = part["error"]
    return found


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{facts['mix']}, images of {facts['size']} pixels"
    yield from (f"  includes {file}" for file in facts["files"][:-1])
    yield f"  {facts['samples']} samples an epoch, {facts['heldout_samples']} held out"
    yield ""
    yield from _tasks(facts["tasks"])
    if len(facts["stages"]) > 1:
        yield "\nschedule; the held-out split is that of the mix without it"
        yield _stages(facts["stages"])
    yield f"\ntrial; tokens of a prompt are {facts['tokens']}"
    yield _trials(facts["tasks"])
    for where, error in errors(facts).items():
        yield f"\nERROR in {where}: {error}"


def _tasks(tasks: Mapping[str, Any]) -> Iterator[str]:
    rows = [["task", "share", "samples", "held out", "seed", "options", "images", "held out", "source"]]
    for name, task in tasks.items():
        rows.append([name, f"{task['share']:.1%}", str(task["samples"]), str(task["heldout_samples"])])
        if "source" in task:
            options = ", ".join(f"{key} {json.dumps(value)}" for key, value in task["options"].items())
            images = ["> 1,000,000" if count is None else str(count) for count in task["images"].values()]
            rows[-1] += [str(task["seed"]), options or "-", *images, task["source"]]
    yield table(rows, indent="  ")
    counts = {
        name: (task["images"]["heldout"], task["heldout_samples"]) for name, task in tasks.items() if "images" in task
    }
    if few := few_images(counts):
        yield f"  WARNING: {few}"
    skipped = {task["source"]: task["skipped"] for task in tasks.values() if task.get("skipped")}
    yield from (f"  left out of {source}: {counted(reasons)}" for source, reasons in skipped.items())


def _stages(stages: Iterable[Mapping[str, Any]]) -> str:
    rows: list[list[str]] = []
    for stage in stages:
        rows = rows or [["samples", *stage["shares"]]]
        rows.append([f"{stage['start']} .. {stage['end'] - 1}"])
        for name, share in stage["shares"].items():
            levels = stage["levels"].get(name, {"?": 1.0})
            at = next(iter(levels)) if len(levels) == 1 else ", ".join(f"{k} {v:.0%}" for k, v in levels.items())
            rows[-1].append(f"{share:.1%} at {at}" if share else "-")
    return table(rows, indent="  ")


def _trials(tasks: Mapping[str, Any]) -> str:
    rows = [["task@level", "tokens", "at most", "ms a sample", "images rejected"]]
    for name, task in tasks.items():
        for level, trial in task.get("levels", {}).items():
            numbers = ["-", "-", "-"]
            if trial["trials"]:
                numbers = [str(trial["tokens"]), str(trial["most_tokens"]), f"{trial['ms']:.0f}"]
            reasons = ", ".join(f"{reason} {share:.0%}" for reason, share in trial["reasons"].items())
            rows.append([f"{name}@{level}", *numbers, f"{trial['rejected']:.0%}" + (f": {reasons}" if reasons else "")])
    return table(rows, indent="  ")


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    trials: Annotated[int, typer.Option("-n", min=1, help="Samples to try of each task at each level.")] = 40,
    model: Annotated[str | None, typer.Option(help="Count tokens with the processor of this model.")] = None,
    as_json: AsJson = False,
) -> None:
    with progress_bar() as on_progress:
        facts = describe_mix(mix, trials=trials, model=model, on_progress=on_progress)
    show(facts, as_text, as_json=as_json)
    if errors(facts):
        raise typer.Exit(2)
