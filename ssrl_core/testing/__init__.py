"""The conformance kit: does a task teach what it claims?

    class TestConformance(PretextTaskTests):
        task = "my_task"

runs every criterion on an installed task as a test; ``check_task`` and the command ``ssrl check`` give the same as a
report. Needs the extra ``ssrl-core[testing]``.
"""

from .report import Check, Report
from .run import CRITERIA, check_task

__all__ = ["CRITERIA", "Check", "PretextTaskTests", "Report", "check_task"]


def __getattr__(name: str) -> object:
    # pytest is needed for the suite only; `ssrl check` does without.
    if name == "PretextTaskTests":
        from .suite import PretextTaskTests

        return PretextTaskTests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
