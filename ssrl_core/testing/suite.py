"""The conformance kit as a test class that a plugin's tests inherit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from ..types import Sample, SourceImage
from .report import Report
from .run import CRITERIA, check_task


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

    def solve(self, source: SourceImage, sample: Sample) -> Iterable[str]:
        """All right answers of the sample according to the definition of the task; override it to add an oracle.

        Args:
            source: the image that the task received, with depth and camera.
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
    def report(cls) -> Report:
        """The report on the task, shared by all tests of a class."""
        tests = cls()
        return check_task(
            cls.task,
            source=cls.source,
            samples=cls.samples,
            size=cls.size,
            levels=cls.levels,
            options=cls.options,
            solve=tests.solve if cls.solve is not PretextTaskTests.solve else None,
            solve_seen=tests.solve_seen if cls.solve_seen is not PretextTaskTests.solve_seen else None,
            variants=tests.variants,
        )

    @pytest.mark.parametrize("criterion", [criterion.id for criterion in CRITERIA])
    def test_conformance(self, report: Report, criterion: str) -> None:
        """The task meets the criterion at every level or declares the failure."""
        checks = [check for check in report.checks if check.id == criterion]
        unmade = [check for check in report.failed if check.id == "contract.generates"]
        failed = [check for check in checks if check.status == "failed"] or unmade
        if failed:
            pytest.fail("\n".join(map(str, failed)), pytrace=False)
        declared = [check for check in checks if check.status == "declared"]
        if declared:
            pytest.xfail("; ".join(f"level {check.level}: {check.reason} ({check.measured})" for check in declared))
        ran = [check for check in checks if check.status == "passed"]
        if not ran:
            pytest.skip("; ".join(dict.fromkeys(check.reason for check in checks)) or "not measured")
