"""``ssrl check``: the conformance kit on an installed task."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ..errors import SSRLError
from ..plugins import find
from ..testing.oracle import Oracle, file_of, load_oracle
from ..testing.report import Check
from ..yamlfile import read_value
from .terminal import AsJson, live_bar, show

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


def _oracle_of(task: str, path: Path | None) -> Oracle | None:
    """The oracle in a file, or that of the plugin's own tests, with a line that names it. Raises SSRLError."""
    if path is not None:
        found = load_oracle(path, task)
    else:
        file = file_of(find(task))
        if file is None:
            return None
        try:
            found = load_oracle(file, task)
        except SSRLError as err:
            typer.echo(f"no oracle: {err}", err=True)
            return None
        # That tests make few samples to save time says nothing about this check.
        found = found._replace(settings={name: value for name, value in found.settings.items() if name != "samples"})
    told = "".join(f", {name} {value!r}" for name, value in found.settings.items())
    typer.echo(f"oracle: {found.name}{told}", err=True)
    return found


def command(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    source: Annotated[
        str | None, typer.Option(show_default="synthetic:", help="URI of the images; with depth if the task needs it.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", min=1, show_default="1000", help="Half the number of samples of each level."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=64, max=4096, show_default="256", help="Length in pixels of the longer side of an image."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random decision.")] = 0,
    level: Annotated[list[str] | None, typer.Option(help="A level to check; may be repeated. All by default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the task, e.g. partial_credit=true.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A criterion or a family of criteria, e.g. leaks.")] = None,
    oracle: Annotated[
        Path | None, typer.Option(show_default="beside the plugin", help="Test file with the oracle and its settings.")
    ] = None,
    no_oracle: Annotated[bool, typer.Option("--no-oracle", help="Use no oracle.")] = False,
    failures: Annotated[
        Path | None, typer.Option(help="Folder for pictures and recipes of the samples that show failures.")
    ] = None,
    badge: Annotated[Path | None, typer.Option(help="SVG file for a badge with the result, for a README.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Make all samples anew, and keep none.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only failures and the summary.")] = False,
    as_json: AsJson = False,
) -> None:
    for library in ("scipy", "sklearn"):
        if not find_spec(library):
            raise SSRLError(f"the checks need {library}, which is not installed: pip install 'ssrl-core[testing]'")
    from ..testing.badge import badge_of
    from ..testing.evidence import write_failures
    from ..testing.run import check_task

    if oracle and no_oracle:
        raise SSRLError("--oracle and --no-oracle exclude each other")
    beside = None if no_oracle else _oracle_of(task, oracle)
    given = {"source": source, "samples": samples, "size": size, "options": options_of(option or []) or None}
    settings = dict(beside.settings) if beside else {}
    settings |= {name: value for name, value in given.items() if value is not None}
    with live_bar(quiet=as_json) as on_progress:

        def print_check(check: Check) -> None:
            if not as_json and not quiet and check.status != "failed":
                typer.echo(line(check))

        report = check_task(
            task,
            **settings,
            **(beside.answers if beside else {}),
            seed=seed,
            levels=level,
            only=only or [],
            cache=not no_cache,
            on_check=print_check,
            on_progress=on_progress,
        )
    if not as_json:
        for check in report.failed:
            typer.echo(line(check))
    show(report.to_json(), lambda _: report.summary, as_json=as_json)
    if failures is not None:
        count = write_failures(report, failures, options=settings.get("options") or {})
        typer.echo(f"{count} samples written into {failures}", err=True)
    if badge is not None:
        badge.write_text(badge_of(report), encoding="utf-8")
    if report.failed:
        raise typer.Exit(1)
