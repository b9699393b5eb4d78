"""The report of the conformance kit: a list of checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

CASES = 10
"""The most samples that an outcome names."""

Status = Literal["passed", "failed", "declared", "not run"]


@dataclass(frozen=True, slots=True)
class Case:
    """A sample that shows why a criterion fails.

    Attributes:
        index: number of the sample in its set; see ``samples``.
        image: name of the hard image that it is made of; empty for a sample of a set.
        oriented: whether it is of the oriented set.
        note: what is wrong with it.
        pictures: numbers of the images that were compared, from 0; empty for all.
    """

    index: int
    image: str = ""
    oriented: bool = False
    note: str = ""
    pictures: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one criterion.

    Attributes:
        passed: whether the measured value is within the bound.
        measured, bound: as text.
        figures: the measured values as numbers.
        remedy: what the author can do about a failure.
        cases: up to ``CASES`` samples that show a failure, the clearest first.
        close: whether more samples may change the result, because the measured value is near its bound.
    """

    passed: bool
    measured: str
    bound: str
    figures: Mapping[str, float] = field(default_factory=dict)
    remedy: str = ""
    cases: Sequence[Case] = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One criterion at one level.

    Attributes:
        id: of the criterion, e.g. ``leaks.prompt``.
        level: of the task; None if the criterion is the same for all levels.
        expected: the requirement in words.
        status: ``declared`` is a failure that the task declares in its ``known_failures``.
        reason: why the failure is declared, why the check was not run, or what to do about a failure.
        cases: see ``Outcome``.
    """

    id: str
    level: str | None
    expected: str
    measured: str
    bound: str
    status: Status
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    cases: Sequence[Case] = ()

    def __str__(self) -> str:
        level = f"@{self.level}" if self.level else ""
        text = f"{self.id}{level} {self.status}: {self.expected}; measured {self.measured}; bound {self.bound}"
        return f"{text}\n  {self.reason}" if self.reason else text


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one task, and the settings of the samples."""

    task: str
    distribution: str
    version: str
    source: str
    samples: int
    size: int
    seed: int
    seconds: float
    checks: tuple[Check, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of checks."""
        return dict(Counter(check.status for check in self.checks))

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks with status ``failed``."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def summary(self) -> str:
        """The number of checks by status, in one line."""
        counts = self.counts
        ran = len(self.checks) - counts.get("not run", 0)
        parts = [f"{counts.get('passed', 0)} passed"]
        words = {"failed": "failed", "declared": "failed as the task declares", "not run": "were not run"}
        parts += [f"{counts[status]} {text}" for status, text in words.items() if status in counts]
        return f"{self.task}: {ran} checks ran in {self.seconds:.0f} s: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "counts": self.counts}
