"""``ssrl check``: the conformance kit on an installed task."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any

import typer
import yaml

from ..errors import SSRLError
from ..testing.report import Check
from ..yamlfile import read_value
from .terminal import AsJson, show

_WORDS = {"passed": "ok", "failed": "FAILED", "declared": "declared", "not run": "not run"}


def line(check: Check) -> str:
    """A check in one line, with its reason in a second one."""
    name = f"{check.id}@{check.level}" if check.level else check.id
    figures = f"{check.measured}   [{check.bound}]" if check.bound else check.expected
    text = f"{_WORDS[check.status]:8}  {name:26}  {figures}"
    if check.status == "failed":
        text += f"\n{'':10}expected: {check.expected}"
    return f"{text}\n{'':10}{check.reason}" if check.reason else text


def options_of(texts: list[str]) -> dict[str, Any]:
    """The options that ``NAME=VALUE`` texts give. Raises SSRLError."""
    options = dict(map(_option, texts))
    if len(options) < len(texts):
        raise SSRLError(f"--option {' --option '.join(texts)}: an option is given twice")
    return options


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SSRLError(f"--option {text!r}: write NAME=VALUE")
    try:
        return name, read_value(value)
    except (yaml.YAMLError, ValueError) as err:
        raise SSRLError(f"--option {text!r}: {err}") from err


def command(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    source: Annotated[str, typer.Option(help="URI of the images; with depth if the task needs it.")] = "synthetic:",
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=1, help="Half the number of samples of each level.")
    ] = 1000,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Length in pixels of the longer side of an image.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random decision.")] = 0,
    level: Annotated[list[str] | None, typer.Option(help="A level to check; may be repeated. All by default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the task, e.g. partial_credit=true.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A criterion or a family of criteria, e.g. leaks.")] = None,
    as_json: AsJson = False,
) -> None:
    for library in ("scipy", "sklearn"):
        if not find_spec(library):
            raise SSRLError(f"the checks need {library}, which is not installed: pip install 'ssrl-core[testing]'")
    from ..testing.run import check_task

    report = check_task(
        task,
        source=source,
        samples=samples,
        size=size,
        seed=seed,
        levels=level,
        options=options_of(option or []),
        only=only or [],
        on_check=lambda check: None if as_json else typer.echo(line(check)),
    )
    show(report.to_json(), lambda _: report.summary, as_json=as_json)
    if report.failed:
        raise typer.Exit(1)
