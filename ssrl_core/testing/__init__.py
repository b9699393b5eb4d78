"""The conformance kit checks an installed task against all criteria.

    class TestConformance(PretextTaskTests):
        task = "my_task"

runs every criterion as a test. ``check_task`` and the command ``ssrl check`` return the same results as a report. The
kit needs the extra ``ssrl-core[testing]``.
"""

from .report import Check, Report
from .run import CRITERIA, check_task

__all__ = ["CRITERIA", "Check", "PretextTaskTests", "Report", "check_task"]


def __getattr__(name: str) -> object:
    # Only the test class needs pytest; `ssrl check` does not.
    if name == "PretextTaskTests":
        from .suite import PretextTaskTests

        return PretextTaskTests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
