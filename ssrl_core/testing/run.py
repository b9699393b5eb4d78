"""``check_task``: run criteria on one task."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

from pydantic import ValidationError

from ..errors import BrokenPlugin, IncompatiblePlugin, SourceError, SSRLError, did_you_mean
from ..mix.file import explain
from ..mix.include import dotted
from ..plugins import Task, find, load_task
from ..sources import open_source
from . import ambiguity, bias, comparisons, contract, determinism, health, leaks, relations, solvable, verifier
from .criteria import Criterion, Family, NotRun, Solve, SolveSeen, Trial, Variants
from .features import GROUPS
from .report import Check, Outcome, Report, Status
from .samples import RELATIONS, Plan, Row, make, rows
from .statistics import bound_above

SAMPLES = 1000
SIZE = 256
FEW = 24
"""The least number of samples that are kept with their images; otherwise a tenth of all."""
CHUNK = 50
CHUNK_SECONDS = 180.0

_FAMILIES: tuple[Family, ...] = (
    contract.family,
    determinism.family,
    verifier.family,
    verifier.hacking,
    bias.family,
    leaks.family,
    relations.family,
    ambiguity.family,
    solvable.family,
    health.family,
)

CRITERIA: tuple[Criterion, ...] = tuple(criterion for family in _FAMILIES for criterion in family.criteria)
"""Every criterion, in the order of the report."""

_VERIFYING = ("verifier.", "hacking.")
_MADE = "contract.generates"
_MADE_EXPECTED = "every sample can be made, fifty within three minutes, with params of plain JSON"


def check_task(
    name: str,
    *,
    source: str = "synthetic:",
    samples: int = SAMPLES,
    size: int = SIZE,
    seed: int = 0,
    levels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    solve: Solve | None = None,
    solve_seen: SolveSeen | None = None,
    variants: Variants | None = None,
    only: Sequence[str] = (),
    workers: int = 2,
    on_check: Callable[[Check], None] = lambda check: None,
) -> Report:
    """The report on an installed task.

    Args:
        name: of the task.
        source: URI of the images, with depth if the task needs it.
        samples: number of natural and of oriented samples for each level; see ``samples``.
        size: working size of the images, pixels of the longer side.
        seed: of all random choices.
        levels: levels to check; None for all.
        options: of the task, as in a mix.
        solve: an oracle, which returns all right answers of a sample, given its image at the working size.
        solve_seen: a solver, which returns the answer of a sample given only what the model sees.
        variants: returns further spellings of a truth that must score 1.0.
        only: ids of criteria or families; empty for all.
        workers: number of worker processes that make samples; with 0, this process makes them.
        on_check: called with each finished check.

    Raises:
        UnknownPlugin, DuplicatePlugin: no task, or more than one, has this name.
        SourceError: the source cannot be opened, has no images, or lacks the depth that the task needs.
        SSRLError: a level, an option or a criterion does not exist.
    """
    start = time.monotonic()
    plugin = find(name)
    criteria = _selected(only)
    checks: list[Check] = []

    def add(check: Check) -> None:
        checks.append(check)
        on_check(check)

    try:
        task = load_task(name)
    except (BrokenPlugin, IncompatiblePlugin) as err:
        hooks = CRITERIA[0]
        add(Check(hooks.id, None, hooks.expected, str(err), "no problem found", "failed"))
    else:
        chosen = _chosen(task, levels)
        images = open_source(source)
        if task.info.needs_depth and not images.has_depth:
            raise SourceError(f"task {name!r} needs depth, and the source {source!r} has none; try 'synthetic:'")
        if not len(images):
            raise SourceError(f"the source {source!r} has no images")
        try:
            task.options_model(**(options or {}))
        except ValidationError as err:
            text = explain(err, lambda *keys: f"option {dotted(keys)}", task.options_model, content=options or {})
            raise SSRLError(text) from err
        plans = [Plan(name, level, options or {}, source, size, seed) for level in chosen]
        ids = frozenset(criterion.id for criterion in CRITERIA)
        trial = Trial(task, plans[0], chosen, solve=solve, solve_seen=solve_seen, variants=variants, criteria=ids)
        with _drawn(plans, samples, workers, groups=_groups(criteria)) as drawn:
            for plan, lots in drawn:
                wanted = [criterion for criterion in criteria if plan.level == chosen[0] or not criterion.once]
                _check_level(replace(trial, plan=plan), lots, wanted, add)
    return Report(
        task=name,
        distribution=plugin.distribution,
        version=plugin.version,
        source=source,
        samples=samples,
        size=size,
        seed=seed,
        seconds=time.monotonic() - start,
        checks=tuple(checks),
    )


def _chosen(task: Task, levels: Sequence[str] | None) -> list[str]:
    known = list(task.info.levels)
    unknown = [level for level in levels or () if level not in known]
    if unknown:
        raise SSRLError(f"task {task.name!r} has no level {unknown[0]!r}; it has {', '.join(known)}")
    return list(levels or known)


def _selected(only: Sequence[str]) -> list[Criterion]:
    for name in only:
        if not any(_is_of(criterion, name) for criterion in CRITERIA):
            known = list(dict.fromkeys(part for c in CRITERIA for part in (c.id.partition(".")[0], c.id)))
            raise SSRLError(f"there is no criterion {name!r}.{did_you_mean(name, known)}\n  known: {', '.join(known)}")
    return [criterion for criterion in CRITERIA if not only or any(_is_of(criterion, name) for name in only)]


def _is_of(criterion: Criterion, name: str) -> bool:
    return criterion.id == name or criterion.id.startswith(f"{name}.")


def _groups(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """The groups of features that these criteria need."""
    ids = {criterion.id for criterion in criteria}
    looks = [group for group in GROUPS if f"leaks.{group}" in ids or f"bias.{group}" in ids]
    every = "solvable.rule of thumb" in ids
    return *looks, *(name for group in comparisons.GROUPS if (name := f"{RELATIONS}{group}") in ids or every)


_Lot = Callable[[], list[Row]]


@contextmanager
def _drawn(
    plans: Sequence[Plan], samples: int, workers: int, *, groups: Sequence[str]
) -> Iterator[list[tuple[Plan, tuple[_Lot, _Lot]]]]:
    """For each plan two functions that return its natural and its oriented rows; worker processes make them ahead."""
    pairs = [(plan, plan.as_oriented(groups=groups)) for plan in plans]
    if workers == 0:
        yield [
            (plan, (partial(rows, plan, range(samples)), partial(rows, other, range(samples)))) for plan, other in pairs
        ]
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    chunks = [range(start, min(start + CHUNK, samples)) for start in range(0, samples, CHUNK)]

    def submit(plan: Plan) -> _Lot:
        return partial(_gather, [pool.submit(rows, plan, chunk) for chunk in chunks])

    try:
        yield [(plan, (submit(plan), submit(other))) for plan, other in pairs]
    finally:
        for process in list((pool._processes or {}).values()):  # shutdown would wait for a task that hangs
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker process when its parent ends, even if the parent is killed or the task hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _gather(futures: Sequence[Future[list[Row]]]) -> list[Row]:
    return [row for future in futures for row in future.result(timeout=CHUNK_SECONDS)]


def _check_level(
    trial: Trial,
    lots: tuple[_Lot, _Lot],
    criteria: Sequence[Criterion],
    add: Callable[[Check], None],
) -> None:
    level = trial.plan.level
    try:
        natural, oriented = (lot() for lot in lots)
        few = [make(trial.plan, index) for index in range(min(max(FEW, len(natural) // 10), len(natural)))]
    except BrokenProcessPool as err:
        raise SSRLError(
            "the processes that draw samples ended: call check_task below `if __name__ == '__main__':`, "
            "or with workers=0"
        ) from err
    except Exception as err:
        what = f"fifty samples took longer than {CHUNK_SECONDS:.0f} s" if isinstance(err, TooLate) else str(err)
        add(Check(_MADE, level, _MADE_EXPECTED, what or type(err).__name__, "all", "failed"))
        for criterion in criteria:
            add(Check(criterion.id, level, criterion.expected, "", "", "not run", "no samples"))
        return
    add(Check(_MADE, level, _MADE_EXPECTED, f"{len(natural) + len(oriented)} samples", "all", "passed"))
    trial = replace(trial, few=few, natural=natural, oriented=oriented)
    for criterion in criteria:
        if criterion.id.startswith(_VERIFYING) and trial.memo.get("verifier hangs"):
            add(Check(criterion.id, level, criterion.expected, "", "", "not run", "the verifier does not return"))
        else:
            add(_check(criterion, trial))


def _check(criterion: Criterion, trial: Trial) -> Check:
    level = None if criterion.once else trial.plan.level
    try:
        outcome = criterion.check(trial)
    except NotRun as err:
        return Check(criterion.id, level, criterion.expected, "", "", "not run", str(err))
    except SSRLError as err:
        outcome = Outcome(False, str(err), "no error")
    except Exception as err:  # for example, of the author's oracle
        where = traceback.extract_tb(err.__traceback__)[-1]
        outcome = Outcome(False, f"{type(err).__name__}: {err} ({where.filename}:{where.lineno})", "no error")
    known = trial.task.info.known_failures
    declared = known.get(f"{criterion.id}@{trial.plan.level}") or known.get(criterion.id)
    exceeded = declared and _exceeded(declared, outcome)
    status: Status = "passed" if outcome.passed else "declared" if declared and not exceeded else "failed"
    reason = exceeded or declared or outcome.remedy
    if outcome.passed:
        reason = "declared as a known failure, but passed" if declared else ""
    measured, bound, figures = outcome.measured, outcome.bound, outcome.figures
    return Check(criterion.id, level, criterion.expected, measured, bound, status, reason, figures, outcome.cases)


def _exceeded(declared: str, outcome: Outcome) -> str:
    """What to say if a share of right answers is surely above the figure that its declaration states; else nothing."""
    stated = [float(figure) for figure in re.findall(r"(?<![\w.])[01]\.\d+", declared)]
    accuracy, samples = outcome.figures.get("accuracy"), outcome.figures.get("samples")
    if not stated or accuracy is None or not samples or max(stated) >= 1:
        return ""
    if accuracy <= bound_above(max(stated), int(samples)):
        return ""
    return f"more than the {max(stated):g} that known_failures states: {declared}"
