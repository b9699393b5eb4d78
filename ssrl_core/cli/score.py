"""``ssrl score``: saved rollouts scored again with the verifiers that are installed now."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..files import written_whole
from ..form import OPENING, Thinking
from ..reward import Key, score_all
from .terminal import AsJson, show, table

BATCH = 256
"""Rollouts that are scored at once."""

SAME = 1e-6
"""Scores that differ by less are equal; trainers save them in 32 bits."""

_MEANS = ("score", "acc", "format")


def rescore(
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    thinking: Thinking | None = None,
    format_weight: float | None = None,
) -> dict[str, Any]:
    """The rewards of saved rollouts under the verifiers that are installed now, summed up by task and level.

    Args:
        paths: JSONL files: verl's dumps (``trainer.rollout_data_dir``, ``trainer.validation_data_dir``), or lines with
            ``task``, ``truth``, ``completion`` and optionally ``params``, ``level``, ``wrappers``, ``format_weight``
            ``thinking``, ``opened``, ``plugin`` and the saved ``score``.
        thinking: judge by this mode instead of the saved one; None keeps it.
        output: file for the lines with their new scores; None writes nothing.
        format_weight: share of the format in the reward, in [0, 1), instead of the saved one. The lines get it too.

    Returns:
        ``tasks``: ``task@level`` -> ``n`` rollouts; means of ``score``, ``acc`` and ``format``; number of verifiers
        that failed (``error``); number of ``saved`` scores, and how many of them ``differ`` from the new ones.
        ``skipped``: reason -> number of lines that cannot be scored.

    Raises:
        SSRLError: a file cannot be read or written, or has no line that can be scored.
        PluginError: a task is not installed, or its plugin is broken.
    """
    sums: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    try:
        with written_whole(output) if output else nullcontext() as file:
            given = {"thinking": thinking, "format_weight": format_weight}
            changes = {name: value for name, value in given.items() if value is not None}
            rollouts = _understood(_lines(paths), skipped, changes)
            while batch := list(islice(rollouts, BATCH)):
                rewards: Sequence[dict[str, Any]] = score_all([case for _, case in batch])
                for (facts, (key, _)), new in zip(batch, rewards, strict=True):
                    _count(sums.setdefault(f"{key.task}@{key.level}", Counter()), new, saved=facts.get("score"))
                    if file is not None:
                        new |= {} if format_weight is None else {"format_weight": format_weight}
                        file.write((json.dumps({**facts, **new}, ensure_ascii=False) + "\n").encode(errors="replace"))
            if not sums:
                reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common()) or "they are empty"
                raise SSRLError(f"no rollout to score in {', '.join(map(str, paths))}: {reasons}")
    except OSError as err:
        raise SSRLError(f"cannot read or write {err.filename or output}: {err.strerror or err}") from err
    tasks = {
        name: {"n": of["n"]}
        | {key: of[key] / of["n"] for key in _MEANS}
        | {key: int(of[key]) for key in ("error", "saved", "differ")}
        for name, of in sorted(sums.items())
    }
    return {"files": [str(path) for path in paths], "tasks": tasks, "skipped": dict(skipped)}


def _count(sums: Counter[str], new: Mapping[str, Any], *, saved: object) -> None:
    """Add the reward of one rollout, which had the score ``saved``, to the sums of its task and level."""
    sums.update(n=1, error=new["error"], **{key: new[key] for key in _MEANS})
    if isinstance(saved, int | float):
        sums.update(saved=1, differ=abs(saved - new["score"]) > SAME)


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with open(path, "rb") as file:
            yield from filter(bytes.strip, file)


def _understood(
    lines: Iterable[bytes], skipped: Counter[str], changes: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], tuple[Key, str]]]:
    """The content of each line with its key, changed, and its completion. Lines without them are counted by reason."""
    for line in lines:
        try:
            facts = json.loads(line)
            key, completion = _understand(facts)
        except ValueError as err:
            skipped[str(err) if type(err) is ValueError else "not JSON"] += 1
        else:
            yield facts, (replace(key, **changes), completion)


def _understand(facts: Any) -> tuple[Key, str]:
    """The key and the completion of a saved rollout. Raises ValueError with a constant reason.

    The prompt in verl's dumps, ``input``, shows whether the chat template ended it with ``<think>``.
    """
    prompt = facts.get("input") if isinstance(facts, dict) else None
    match facts:
        case {"output": str() as completion, "gts": str() as text}:
            reason = "its gts is not the key that ssrl writes into reward_model.ground_truth"
        case {"task": _, "truth": _, "completion": str() as completion}:
            text = json.dumps({name: facts[name] for name in Key.__slots__ if name in facts})
            reason = "a value of the wrong type beside the completion"
        case _:
            raise ValueError("neither output and gts (verl's dumps) nor task, truth and completion")
    try:
        key = Key.from_json(text)
        if key.opened is None and isinstance(prompt, str):
            key = replace(key, opened=prompt.rstrip().endswith(OPENING))
        return key, completion
    except ValueError:
        raise ValueError(reason) from None


def text_of_scores(facts: Mapping[str, Any]) -> str:
    """The facts of ``rescore`` for a terminal."""
    rows = [("task@level", "n", "score", "accuracy", "form", "errors", "changed")]
    for name, task in facts["tasks"].items():
        changed = f"{task['differ']} of {task['saved']}" if task["saved"] else "-"
        means = (f"{task[key]:.3f}" for key in _MEANS)
        rows.append((name, str(task["n"]), *means, str(task["error"]), changed))
    return "\n".join([table(rows), *(f"skipped {n}: {reason}" for reason, n in facts["skipped"].items())])


def command(
    files: Annotated[list[Path], typer.Argument(help="JSONL: verl's dumps, or task, truth, params, completion.")],
    output: Annotated[Path | None, typer.Option("-o", help="File for the lines with their new scores.")] = None,
    thinking: Annotated[
        Thinking | None, typer.Option(help="Judge by this mode of thinking instead of the saved one.")
    ] = None,
    format_weight: Annotated[
        float | None,
        typer.Option(min=0, max=0.999, help="Share of the format in the reward, instead of the saved one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    facts = rescore(files, output=output, thinking=thinking, format_weight=format_weight)
    show(facts, text_of_scores, as_json=as_json)
