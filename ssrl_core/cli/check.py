"""``ssrl check``: the conformance kit on an installed task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import yaml

from ..errors import SSRLError
from ..testing.report import Check
from .terminal import AsJson

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
        from ..testing.run import check_task
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


def command(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    source: Annotated[str, typer.Option(help="URI of the images; with depth, if the task needs it.")] = "synthetic:",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Half of those of a level.")] = 1000,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Pixels of the longer side of images.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    level: Annotated[list[str] | None, typer.Option(help="A level to check; all by default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the task, e.g. partial_credit=true.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A criterion, or a family of them, e.g. leaks.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a task: determinism, contract, verifier, reward hacking, bias, leaks, ambiguity, health."""
    passed = run_check(
        task, source, samples=samples, size=size, seed=seed, levels=level, options=option or [], only=only or [],
        as_json=as_json, echo=typer.echo,
    )  # fmt: skip
    if not passed:
        raise typer.Exit(1)
