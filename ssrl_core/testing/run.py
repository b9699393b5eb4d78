"""``check_task``: run criteria on one task."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ..errors import BrokenPlugin, IncompatiblePlugin, SourceError, SSRLError, did_you_mean
from ..mix.file import explain
from ..mix.include import dotted
from ..plugins import Task, find, load_task
from ..sources import open_source
from ..sources.scenes import collection, lacking
from . import ambiguity, bias, comparisons, contract, determinism, health, leaks, relations, solvable, verifier
from .cache import default_folder
from .criteria import Criterion, Family, NotRun, Solve, SolveSeen, Trial, Variants
from .features import GROUPS
from .lots import SETS, Drawer, Level, NotMade, NoWorkers
from .report import Check, Outcome, Report, Status
from .samples import RELATIONS, Plan
from .statistics import bound_above

SAMPLES = 1000
SIZE = 256
MOST = 4
"""How many times the samples are made at most for a criterion whose figure is close to its bound."""

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


class Examination:
    """A task whose criteria are measured one by one. Samples are made when a criterion looks at them.

    Args:
        name, source, samples, size, seed, levels, options, solve, solve_seen, variants, workers, cache: see
            ``check_task``.
        only: ids of criteria or families that may be asked for; empty for all.

    Attributes:
        criteria: those that may be asked for.
        levels: names of the levels to check.

    Raises:
        See ``check_task``.
    """

    def __init__(
        self,
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
        cache: bool = True,
    ) -> None:
        self.start = time.monotonic()
        self.criteria = _selected(only)
        self.levels: list[str] = []
        self._name, self._plugin, self._samples = name, find(name), samples
        self._source, self._size, self._seed = source, size, seed
        self._lots: dict[str, Level] = {}
        self._looked_at: dict[str, None] = {}  # sets of which a criterion wanted rows, in this order
        self._drawer: Drawer | None = None
        self._broken = ""
        try:
            task = load_task(name)
        except (BrokenPlugin, IncompatiblePlugin) as err:
            self._broken = str(err)
            return
        self.levels = _chosen(task, levels)
        _check_usable(task, source, options or {})
        self._drawer = Drawer(task, source, workers=workers, folder=default_folder() if cache else None)
        plan = Plan(name, self.levels[0], options or {}, source, size, seed, images=self._drawer.images)
        groups, upright = _groups(self.criteria), _upright_groups(self.criteria)
        for level in self.levels:
            natural = replace(plan, level=level, groups=upright)
            self._lots[level] = Level(natural, samples, self._drawer, groups=groups)
        ids = frozenset(criterion.id for criterion in CRITERIA)
        self._trial = Trial(
            task, plan, self.levels, solve=solve, solve_seen=solve_seen, variants=variants, criteria=ids
        )

        if len(self.criteria) == len(CRITERIA):
            self._looked_at = dict.fromkeys(SETS)
            self._begin(self.levels)

    def levels_of(self, criterion: Criterion) -> list[str]:
        """The levels at which a criterion is measured; none if the plugin cannot be loaded."""
        return self.levels[:1] if criterion.once else self.levels

    def check(self, criterion: Criterion, level: str) -> Check:
        """The result of a criterion at a level."""
        shown = None if criterion.once else level
        not_run = Check(criterion.id, shown, criterion.expected, "", "", "not run")
        if criterion.id.startswith(_VERIFYING) and self._trial.memo.get("verifier hangs"):
            return replace(not_run, reason="the verifier does not return")
        try:
            outcome = self._outcome(criterion, level)
        except NotRun as err:
            return replace(not_run, reason=str(err))
        except NotMade:
            return replace(not_run, reason="no samples")
        finally:
            self._begin(self.levels[self.levels.index(level) + 1 :])
        return _judged(criterion, shown, outcome, declared=self._declared(criterion, level))

    def made(self, level: str) -> Check | None:
        """Whether the samples of a level could be made; None if no criterion looked at any."""
        lots = self._lots[level]
        if lots.failure:
            return Check(_MADE, level, _MADE_EXPECTED, str(lots.failure), "all", "failed")
        return Check(_MADE, level, _MADE_EXPECTED, f"{lots.made} samples", "all", "passed") if lots.made else None

    def unloaded(self) -> Check | None:
        """The failure to load the plugin; None if it is loaded."""
        hooks = CRITERIA[0]
        if not self._broken:
            return None
        return Check(hooks.id, None, hooks.expected, self._broken, "no problem found", "failed")

    def forget(self, level: str) -> None:
        """Give the memory of a level's samples free."""
        del self._lots[level]

    def report(self, checks: Sequence[Check]) -> Report:
        """The report with these checks."""
        return Report(
            task=self._name,
            distribution=self._plugin.distribution,
            version=self._plugin.version,
            source=self._source,
            samples=self._samples,
            size=self._size,
            seed=self._seed,
            seconds=time.monotonic() - self.start,
            checks=tuple(checks),
        )

    def close(self) -> None:
        """End the worker processes."""
        if self._drawer:
            self._drawer.close()

    def _outcome(self, criterion: Criterion, level: str) -> Outcome:
        """What a criterion measures, with more samples as long as that may change an undeclared result."""
        lots, declared, groups = self._lots[level], self._declared(criterion, level), _groups([criterion])
        looked_at: list[str] = []
        for times in range(1, MOST + 1):
            sets = {name: lots.rows(name, times=times if name in looked_at else 1, groups=groups) for name in SETS}
            trial = replace(self._trial, plan=lots.plan, few=lots.few())
            outcome = _measured(criterion, replace(trial, natural=sets["natural"], oriented=sets["oriented"]))
            looked_at = [name for name, lot in sets.items() if lot.is_made]
            self._looked_at |= dict.fromkeys(looked_at)
            if not outcome.close or declared or not looked_at:
                break
        if times > 1:
            count = sum(len(sets[name]) for name in looked_at)
            outcome = replace(outcome, measured=f"{outcome.measured}; drawn again: {count} samples")
        return outcome

    def _begin(self, levels: Sequence[str]) -> None:
        """Let the worker processes begin with what the criteria will look at in these levels."""
        for level in levels:
            for name in self._looked_at:
                self._lots[level].begin(name)

    def _declared(self, criterion: Criterion, level: str) -> str:
        known = self._trial.task.info.known_failures
        return known.get(f"{criterion.id}@{level}") or known.get(criterion.id) or ""


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
    cache: bool = True,
    on_check: Callable[[Check], None] = lambda check: None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Report:
    """The report on an installed task.

    Args:
        name: of the task.
        source: URI of the images, with depth if the task needs it.
        samples: number of natural and of oriented samples for each level; see ``samples``. For a figure that is close
            to its bound, up to ``MOST`` times as many are made.
        size: working size of the images, pixels of the longer side.
        seed: of all random choices.
        levels: levels to check; None for all.
        options: of the task, as in a mix.
        solve: an oracle, which returns all right answers of a sample, given its image at the working size.
        solve_seen: a solver, which returns the answer of a sample given only what the model sees.
        variants: returns further spellings of a truth that must score 1.0.
        only: ids of criteria or families; empty for all. Only the samples that these look at are made.
        workers: number of worker processes that make samples; with 0, this process makes them.
        cache: whether samples are kept on disk for the next run; see ``keys``. Never with 0 workers.
        on_check: called with each finished check.
        on_progress: called before each check with the number of finished ones, the number of all, and its name.

    Raises:
        UnknownPlugin, DuplicatePlugin: no task, or more than one, has this name.
        SourceError: the source cannot be opened, has no images, or lacks the depth that the task needs.
        SSRLError: a level, an option or a criterion does not exist.
    """
    settings = {"source": source, "samples": samples, "size": size, "seed": seed, "levels": levels, "options": options}
    oracle = {"solve": solve, "solve_seen": solve_seen, "variants": variants}
    found: list[Check] = []

    def add(check: Check) -> None:
        found.append(check)
        on_check(check)

    with closing(Examination(name, **settings, **oracle, only=only, workers=workers, cache=cache)) as examined:  # type: ignore[arg-type]
        if unloaded := examined.unloaded():
            add(unloaded)
        todo = {level: [c for c in examined.criteria if level in examined.levels_of(c)] for level in examined.levels}
        done, total = 0, sum(map(len, todo.values()))
        for level, criteria in todo.items():
            for criterion in criteria:
                on_progress(done, total, criterion.id if criterion.once else f"{criterion.id}@{level}")
                add(examined.check(criterion, level))
                done += 1
            if made := examined.made(level):
                add(made)
            examined.forget(level)
        return examined.report(found)


def _check_usable(task: Task, source: str, options: Mapping[str, Any]) -> None:
    """Raise an error if the source or the options do not fit the task."""
    images = open_source(source)
    if missing := lacking(task.info, images):
        raise SourceError(f"the source {source!r} has not what task {task.name!r} needs: {missing}")
    if not len(collection(task.info, images)):
        raise SourceError(f"the source {source!r} has no images")
    try:
        task.options_model(**options)
    except ValidationError as err:
        text = explain(err, lambda *keys: f"option {dotted(keys)}", task.options_model, content=options)
        raise SSRLError(text) from err


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


def _upright_groups(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """The groups of features that these criteria need of the natural samples."""
    upright = any(criterion.id == f"{RELATIONS}{relations.UPRIGHT}" for criterion in criteria)
    return (f"{RELATIONS}marks",) if upright else ()


def _measured(criterion: Criterion, trial: Trial) -> Outcome:
    """The outcome of a criterion; an error of the task or of the author's oracle is a failure."""
    try:
        return criterion.check(trial)
    except (NotRun, NotMade, NoWorkers):
        raise
    except SSRLError as err:
        return Outcome(False, str(err), "no error")
    except Exception as err:  # for example, of the author's oracle
        where = traceback.extract_tb(err.__traceback__)[-1]
        return Outcome(False, f"{type(err).__name__}: {err} ({where.filename}:{where.lineno})", "no error")


def _judged(criterion: Criterion, level: str | None, outcome: Outcome, *, declared: str) -> Check:
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
