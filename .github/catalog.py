"""Check the entries of the catalog: each is installed in an environment of its own, and the kit checks its tasks.

    python .github/catalog.py [--catalog FILE] [--since FILE] [--extra-index-url URL] [-n N] [--reports DIR] [--strict]

Writes the key `checked` of each entry. Needs ssrl-core and pip. An environment is no sandbox: a distribution's code has
the rights of this process, so the workflow that calls this gets none to write to the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssrl_core.errors import SSRLError
from ssrl_core.plugins.catalog import KINDS, SHIPPED, Catalog, Checked, Entry, dump, read

CORE = "ssrl-core"

PROBE = """
import json, sys
from importlib import metadata
from ssrl_core.plugins import load_task
from ssrl_core.plugins.installed import find
distribution = metadata.distribution(sys.argv[1])
provided, faults, needs = {}, [], set()
for entry in distribution.entry_points:
    kind = "tasks" if entry.group == "ssrl" else entry.group.removeprefix("ssrl.")
    if entry.group != "ssrl" and kind == entry.group:
        continue
    provided.setdefault(kind, []).append(entry.name)
    try:
        find(entry.name, group=entry.group)
        if kind == "tasks":
            info = load_task(entry.name).info
            needs |= {"depth"} if info.needs_depth else set()
            needs |= {"poses"} if getattr(info, "needs_pose", False) else set()  # since API 1.1
            needs |= {getattr(info, "takes", "image")} - {"image"}
        else:
            entry.load()
    except Exception as err:
        faults.append(f"{entry.name}: {err}")
facts = {"version": distribution.version, "core": metadata.version("ssrl-core"), "needs": sorted(needs)}
print("\\n" + json.dumps(facts | {"provided": provided, "faults": faults}))
"""
"""Prints facts about an installed distribution, as JSON in the last line. Runs in its environment."""


class NotInstalled(Exception):
    """A distribution cannot be installed; the message says why."""


@dataclass(frozen=True)
class Settings:
    """How entries are checked.

    Attributes:
        pip: options of ``pip install`` about indexes.
        samples: ``ssrl check -n``.
        timeout: seconds for the check of a task, and for an installation.
        work: folder of the environments.
        reports: folder for the report of each task, as JSON; None for no reports.
    """

    pip: tuple[str, ...]
    samples: int
    timeout: float
    work: Path
    reports: Path | None


def main() -> int:
    """Check the entries that the command line selects, and write the catalog."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalog", type=Path, default=SHIPPED, help="the file; that of ssrl_core by default")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="distributions to check; all by default")
    parser.add_argument("--since", type=Path, metavar="FILE", help="check entries that differ from this older catalog")
    parser.add_argument("--index-url", metavar="URL", help="index of packages; that of pip's settings by default")
    parser.add_argument("--extra-index-url", action="append", default=[], metavar="URL", help="may be repeated")
    parser.add_argument("-n", "--samples", type=int, default=300, help="half the number of samples of each level")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for the check of a task")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="folder for the report of each task, as JSON")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a checked entry has not passed")
    arguments = parser.parse_args()
    catalog = read(arguments.catalog)
    names = selected(catalog, only=arguments.only, since=read(arguments.since) if arguments.since else None)
    index = ["--index-url", arguments.index_url] * bool(arguments.index_url)
    index += [word for url in arguments.extra_index_url for word in ("--extra-index-url", url)]
    with TemporaryDirectory(prefix="ssrl-catalog-") as work:
        settings = Settings(tuple(index), arguments.samples, arguments.timeout, Path(work), arguments.reports)
        if names and not is_on_index(CORE, settings):  # else every entry would seem to have vanished
            raise SSRLError(f"the index does not have {CORE}, or cannot be reached. Nothing was checked")
        for name in names:
            checked = check(name, catalog.distributions[name], settings)
            lines = [f"{checked.status:8}  {name} {checked.version}".rstrip(), *checked.faults]
            print("\n          ".join(lines), flush=True)
            entry = catalog.distributions[name].model_copy(update={"checked": checked})
            catalog = Catalog(updated=checked.date, distributions={**catalog.distributions, name: entry})
            arguments.catalog.write_text(dump(catalog), encoding="utf-8")
    bad = [name for name in names if catalog.distributions[name].status != "passed"]
    print(f"{len(names) - len(bad)} of {len(names)} entries passed")
    return int(arguments.strict and bool(bad))


def selected(catalog: Catalog, *, only: list[str] | None, since: Catalog | None) -> list[str]:
    """The names of the entries to check. Raises SSRLError for an unknown one."""
    if unknown := set(only or ()) - catalog.distributions.keys():
        raise SSRLError(f"--only {' '.join(sorted(unknown))}: the catalog does not list it")
    names = [name for name in catalog.distributions if only is None or name in only]
    return [name for name in names if since is None or since.distributions.get(name) != catalog.distributions[name]]


def check(name: str, entry: Entry, settings: Settings) -> Checked:
    """The result for an entry of the catalog."""
    today = datetime.now(UTC).date()
    if not is_on_index(name, settings):
        return Checked(date=today, status="vanished", faults=("the index of packages does not have it",))
    folder = settings.work / name
    try:
        python = environment(folder, name, settings)
        found = probe(python, name, settings)
        samples = settings.samples if entry.tasks else 0
        declared, faults = 0, list(differences(name, entry, found))
        for task in entry.tasks:
            if task in found["provided"].get("tasks", ()):
                report, fault = check_task(python, name, task, settings)
                declared += report["counts"].get("declared", 0) if report else 0
                faults += [fault] if fault else failures(report)
        return Checked(
            date=today,
            core=found["core"],
            version=found["version"],
            status="failed" if faults else "passed",
            samples=samples,
            declared=declared,
            faults=tuple(map(one_line, faults))[:10],
        )
    except NotInstalled as err:
        return Checked(date=today, status="failed", faults=(one_line(str(err)),))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_on_index(name: str, settings: Settings) -> bool:
    """Whether an index has any release of a distribution, for whatever version of Python."""
    words = ["install", "--dry-run", "--no-deps", "--ignore-requires-python", "--quiet", *settings.pip, name]
    return run([sys.executable, "-m", "pip", *words], settings).returncode == 0


def environment(folder: Path, name: str, settings: Settings) -> Path:
    """The interpreter of a new environment with a distribution and the conformance kit. Raises NotInstalled."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    words = ["install", "--quiet", "--no-compile", *settings.pip, f"{CORE}[testing]", name]
    done = run([sys.executable, "-m", "pip", "--python", str(python), *words], settings)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise NotInstalled(f"it does not install: {(errors or done.stderr.splitlines() or ['pip failed'])[0]}")
    return python


def probe(python: Path, name: str, settings: Settings) -> dict[str, Any]:
    """What ``PROBE`` prints about a distribution. Raises NotInstalled."""
    done = run([str(python), "-c", PROBE, name], settings)
    if done.returncode:
        raise NotInstalled(f"it cannot be loaded: {last_line(done.stderr)}")
    facts: dict[str, Any] = json.loads(last_line(done.stdout))
    return facts


def differences(name: str, entry: Entry, found: Mapping[str, Any]) -> Iterator[str]:
    """What an installed distribution does not provide as its entry says."""
    yield from found["faults"]
    for kind in KINDS:
        listed, provided = set(getattr(entry, kind)), set(found["provided"].get(kind, ()))
        if missing := listed - provided:
            yield f"{name} {found['version']} does not provide the {kind} {', '.join(sorted(missing))}"
        if unlisted := provided - listed:
            yield f"the entry does not list the {kind} {', '.join(sorted(unlisted))}"
    if missing := set(found["needs"]) - set(entry.needs):
        yield f"its tasks need {', '.join(sorted(missing))}, and the entry does not say so in needs"


def check_task(python: Path, name: str, task: str, settings: Settings) -> tuple[dict[str, Any] | None, str]:
    """The report on a task and an empty text, or None and what went wrong."""
    words = ["check", task, "-n", str(settings.samples), "--json", "--no-oracle", "--no-cache"]
    done = run([str(python), "-m", "ssrl_core", *words], settings)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return None, f"{task}: ssrl check ended with code {done.returncode}: {last_line(done.stderr)}"
    if settings.reports:
        settings.reports.mkdir(parents=True, exist_ok=True)
        (settings.reports / f"{name}-{task}.json").write_text(done.stdout, encoding="utf-8")
    return report, ""


def failures(report: Mapping[str, Any] | None) -> list[str]:
    """The failed checks of a report, a line each."""
    failed = [check for check in report["checks"] if check["status"] == "failed"] if report else []
    return [
        f"{report['task']}: {check['id']}{'@' * bool(check['level'])}{check['level'] or ''}: {check['measured']}"
        for check in failed
        if report
    ]


def run(command: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    """A finished command, whose folder and cache are in the work folder; code 124 if it exceeded the time limit."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SSRL_"))}
    environment["SSRL_CACHE"] = str(settings.work / "cache")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=settings.work, env=environment, **streams) as process:
        try:
            out, err = process.communicate(timeout=settings.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its worker processes too
            return subprocess.CompletedProcess(command, 124, "", f"it did not end within {settings.timeout:g} s")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def last_line(text: str) -> str:
    """The last line of a text that is not blank."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def one_line(text: str) -> str:
    """A text without line breaks, cut to the length that the catalog allows."""
    return " ".join(text.split())[:200].strip()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SSRLError as err:
        sys.exit(f"catalog: {err}")
