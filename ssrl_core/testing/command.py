"""What ``ssrl check`` prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from ..errors import SSRLError
from .report import Check

_MARKS = {"passed": "ok", "failed": "FAILED", "declared": "declared", "not run": "not run"}


def run_check(
    task: str,
    source: str,
    *,
    samples: int,
    size: int,
    seed: int,
    levels: Sequence[str] | None,
    options: Sequence[str],
    only: Sequence[str],
    as_json: bool,
    echo: Callable[[str], None],
) -> bool:
    """Whether the task meets all criteria, or declares those that it does not; prints each check as it is done."""
    try:
        import scipy
        import sklearn

        assert scipy and sklearn
        from .run import check_task
    except ModuleNotFoundError as err:
        raise SSRLError(f"{err}; to install what the checks need: pip install 'ssrl-core[testing]'") from err

    def show(check: Check) -> None:
        if not as_json:
            echo(line(check))

    report = check_task(
        task,
        source=source,
        samples=samples,
        size=size,
        seed=seed,
        levels=levels,
        options=dict(map(_option, options)),
        only=only,
        on_check=show,
    )
    echo(json.dumps(report.to_json(), indent=2) if as_json else report.summary)
    return not report.failed


def line(check: Check) -> str:
    """A check in a line, and its reason in a second one."""
    name = f"{check.id}@{check.level}" if check.level else check.id
    figures = f"{check.measured}   [{check.bound}]" if check.bound else check.expected
    text = f"{_MARKS[check.status]:8}  {name:26}  {figures}"
    if check.status == "failed":
        text += f"\n{'':10}expected: {check.expected}"
    return f"{text}\n{'':10}{check.reason}" if check.reason else text


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SSRLError(f"--option {text!r}: write NAME=VALUE")
    return name, yaml.safe_load(value)
