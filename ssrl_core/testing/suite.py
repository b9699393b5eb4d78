"""The conformance kit as tests that a plugin's own test file inherits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from ..types import Sample, SourceImage
from .report import Report
from .run import CRITERIA, check_task


class PretextTaskTests:
    """All criteria as tests, one each, over all levels.

    ::

        class TestConformance(PretextTaskTests):
            task = "my_task"

    Attributes:
        task: name of the installed task.
        source: URI of the images, with depth if the task needs it.
        samples: drawn a level; fewer are quicker and see only larger faults.
        size: pixels of the longer side of images.
        levels: those to check; all where None.
        options: of the task, as in a mix.
    """

    task: ClassVar[str]
    source: ClassVar[str] = "synthetic:"
    samples: ClassVar[int] = 300
    size: ClassVar[int] = 256
    levels: ClassVar[Sequence[str] | None] = None
    options: ClassVar[Mapping[str, Any]] = {}

    def solve(self, source: SourceImage, sample: Sample) -> Iterable[str]:
        """An oracle, to be overridden: every answer that is right for the sample, found from the definition.

        It sees the image that the task saw (with depth and camera) and what a model sees, and must not use what the
        generator wrote into ``sample.params`` beyond what the prompt says too.
        """
        raise NotImplementedError

    def variants(self, truth: str) -> Iterable[str]:
        """Further ways to write a truth that must score 1.0, to be overridden."""
        return ()

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls) -> Report:
        """The report on the task; made once for all tests of a class."""
        tests = cls()
        return check_task(
            cls.task,
            source=cls.source,
            samples=cls.samples,
            size=cls.size,
            levels=cls.levels,
            options=cls.options,
            solve=tests.solve if cls.solve is not PretextTaskTests.solve else None,
            variants=tests.variants,
        )

    @pytest.mark.parametrize("criterion", [criterion.id for criterion in CRITERIA])
    def test_conformance(self, report: Report, criterion: str) -> None:
        """The task meets the criterion at every level, or declares why it does not."""
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
