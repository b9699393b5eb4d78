"""The conformance kit as a test class that a plugin's tests inherit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar

import pytest

from ..types import Sample
from .criteria import Criterion
from .report import Check, Report
from .run import CRITERIA, Examination


class PretextTaskTests:
    """All criteria as tests, one for each criterion over all levels.

    ::

        class TestConformance(PretextTaskTests):
            task = "my_task"

    Attributes:
        task: name of the installed task.
        source: URI of the images, with depth if the task needs it.
        samples: number for each level; fewer samples take less time and reveal only larger faults.
        size: pixels of the longer side of the images.
        levels: levels to check; None for all.
        options: of the task, as in a mix.
    """

    task: ClassVar[str]
    source: ClassVar[str] = "synthetic:"
    samples: ClassVar[int] = 300
    size: ClassVar[int] = 256
    levels: ClassVar[Sequence[str] | None] = None
    options: ClassVar[Mapping[str, Any]] = {}

    def solve(self, source: Any, sample: Sample) -> Iterable[str]:
        """All right answers of the sample according to the definition of the task; override it to add an oracle.

        Args:
            source: the image that the task received, with depth and camera; or the frames, see ``SourceFrames``.
            sample: of ``params``, use only what the prompt says too.
        """
        raise NotImplementedError

    def solve_seen(self, sample: Sample) -> str:
        """The answer of the sample according to its images and its prompt alone; override it to add a solver.

        The kit then measures how many samples can be solved by what the model sees.
        """
        raise NotImplementedError

    def variants(self, truth: str) -> Iterable[str]:
        """Further spellings of a truth that must score 1.0; override it to add some."""
        return ()

    @pytest.fixture(scope="class")
    @classmethod
    def examination(cls, request: pytest.FixtureRequest) -> Iterator[Examination]:
        """The task, whose criteria are measured as their tests run, with the samples that these need."""
        settings = {name: getattr(cls, name) for name in ("source", "samples", "size", "levels", "options")}
        items = (item for item in request.session.items if getattr(item, "cls", None) is cls)
        calls = [item.callspec.params for item in items if hasattr(item, "callspec")]
        only = [params["criterion"] for params in calls if "criterion" in params]
        with closing(Examination(cls.task, **settings, **answers_of(cls), only=only)) as examination:
            yield examination

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls, examination: Examination) -> Report:
        """The report on the selected criteria, for further tests of a subclass."""
        return examination.report([check for c in examination.criteria for check in _checks(examination, c)])

    @pytest.mark.parametrize("criterion", [criterion.id for criterion in CRITERIA])
    def test_conformance(self, examination: Examination, criterion: str) -> None:
        """The task meets the criterion at every level or declares the failure."""
        (asked,) = (c for c in CRITERIA if c.id == criterion)
        checks = _checks(examination, asked)
        failed = [check for check in checks if check.status == "failed"]
        if failed:
            pytest.fail("\n".join(map(str, failed)), pytrace=False)
        declared = [check for check in checks if check.status == "declared"]
        if declared:
            pytest.xfail("; ".join(f"level {check.level}: {check.reason} ({check.measured})" for check in declared))
        ran = [check for check in checks if check.status == "passed"]
        if not ran:
            pytest.skip("; ".join(dict.fromkeys(check.reason for check in checks)) or "not measured")


def answers_of(tests: type[PretextTaskTests]) -> dict[str, Any]:
    """What a test class says about right answers, as arguments of ``check_task``."""
    own, base = tests(), PretextTaskTests
    return {
        "solve": own.solve if tests.solve is not base.solve else None,
        "solve_seen": own.solve_seen if tests.solve_seen is not base.solve_seen else None,
        "variants": own.variants,
    }


def _checks(examination: Examination, criterion: Criterion) -> list[Check]:
    """The results of a criterion, and the failure to load the plugin or to make the samples that it needs."""
    if unloaded := examination.unloaded():
        return [unloaded] if unloaded.id == criterion.id else []
    levels = examination.levels_of(criterion)
    checks = [examination.check(criterion, level) for level in levels]
    if any(check.status == "not run" for check in checks):
        made = [examination.made(level) for level in levels]
        checks += [check for check in made if check and check.status == "failed"]
    return checks
