"""The catalog: distributions that can be installed, what they provide, and what the conformance kit found.

The core ships ``catalog.yaml``. ``ssrl catalog --update`` saves a newer one in the user's cache folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import yamlfile
from ..errors import SSRLError, did_you_mean
from ..files import cache_folder

SHIPPED = Path(__file__).parents[1] / "catalog.yaml"
HEADER = """\
# The catalog of distributions for ssrl-core. To add yours, add an entry with summary, what it provides, needs and home,
# and open a pull request (see CONTRIBUTING.md). The key `checked` is written by .github/catalog.py: leave it out.
"""

KINDS = ("tasks", "sources", "wrappers", "benchmarks", "scorers")
"""What a distribution can provide. The entry-point groups are ``ssrl``, ``ssrl.sources``, and so on."""

Status = Literal["passed", "failed", "vanished"]
Names = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_+.-]*$", max_length=60)], ...], Field(max_length=100)
]
Count = Annotated[int, Field(ge=0)]
Line = Annotated[str, Field(pattern=r"^\S(.*\S)?$", max_length=200)]
Distribution = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Checked(_Strict):
    """What a clean installation of a distribution and ``ssrl check`` of its tasks found.

    Attributes:
        date: of the check.
        core, version: of ssrl-core and of the distribution; empty if they could not be installed.
        status: ``vanished`` if the index of packages does not have the distribution.
        samples: ``ssrl check -n``; 0 if no task was checked.
        declared: number of checks that fail as the tasks declare.
        faults: why the status is not ``passed``, a line each.
    """

    date: date
    core: str = ""
    version: str = ""
    status: Status
    samples: Count = 0
    declared: Count = 0
    faults: Annotated[tuple[Line, ...], Field(max_length=10)] = ()


class Entry(_Strict):
    """A distribution.

    Attributes:
        summary: one line.
        tasks, sources, wrappers, benchmarks, scorers: names of the entry points that it provides.
        needs: what its tasks need besides single colour images: ``depth``, ``poses``, ``views``, ``clip``; or of a
            machine, e.g. ``gpu``.
        home: URL, or empty.
        checked: None for a new entry.
    """

    summary: Line
    tasks: Names = ()
    sources: Names = ()
    wrappers: Names = ()
    benchmarks: Names = ()
    scorers: Names = ()
    needs: Names = ()
    home: Annotated[str, Field(pattern=r"^(https?://[^\s<>()|\"'`\\]+)?$", max_length=200)] = ""
    checked: Checked | None = None

    @model_validator(mode="after")
    def _provides_something(self) -> Entry:
        if not any(getattr(self, kind) for kind in KINDS):
            raise ValueError(f"it provides nothing: give names of {', '.join(KINDS)}")
        return self

    @property
    def status(self) -> Status | Literal["not checked"]:
        """The result of the last check."""
        return self.checked.status if self.checked else "not checked"


class Catalog(_Strict):
    """All entries by the name of the distribution, and the day of the last change."""

    updated: date
    distributions: dict[Distribution, Entry]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Catalog:
        for kind in KINDS:
            first: dict[str, str] = {}
            for distribution, entry in self.distributions.items():
                for name in getattr(entry, kind):
                    if (other := first.setdefault(name, distribution)) != distribution:
                        raise ValueError(f"{kind}: {other} and {distribution} both provide {name!r}; rename one")
        return self


def read(path: Path) -> Catalog:
    """The catalog in a file. Raises SSRLError with file, key and reason of each mistake."""
    content = yamlfile.read_mapping(path, what="catalog", error=SSRLError)
    try:
        return Catalog.model_validate(content)
    except ValidationError as err:
        raise SSRLError("\n".join(_explained(err, path))) from err


def dump(catalog: Catalog) -> str:
    """The text of a catalog's file: without defaults, distributions in alphabetical order."""
    content = catalog.model_dump(mode="json", exclude_defaults=True)
    content["distributions"] = dict(sorted(content["distributions"].items()))
    return HEADER + yamlfile.dump(content)


def saved_file() -> Path:
    """Where ``ssrl catalog --update`` saves a catalog."""
    return cache_folder() / "catalog.yaml"


def newest() -> tuple[Catalog, Path]:
    """The shipped catalog, or the saved one unless it is older, and its file. Raises SSRLError."""
    shipped, path = read(SHIPPED), saved_file()
    if path.exists():
        try:
            saved = read(path)
        except SSRLError as err:
            raise SSRLError(f"{err}\n  remove {path}, or replace it with ssrl catalog --update") from err
        if saved.updated >= shipped.updated:
            return saved, path
    return shipped, SHIPPED


def offers(group: str) -> dict[str, tuple[str, str]]:
    """Name -> the distribution of the newest catalog that provides it, and its status.

    Args:
        group: of entry points, e.g. ``ssrl.sources``.

    For ``ssrl list`` and for messages about missing plugins: quick, and without an error for a damaged file.
    """
    kind = "tasks" if group == "ssrl" else group.removeprefix("ssrl.")
    if kind not in KINDS:  # the core alone has such plugins
        return {}
    newer = max(map(_quick, (saved_file(), SHIPPED)), key=lambda catalog: catalog.updated)
    found: dict[str, tuple[str, str]] = {}
    for distribution, entry in newer.distributions.items():
        found.update(dict.fromkeys(getattr(entry, kind), (distribution, entry.status)))
    return found


def _quick(path: Path) -> Catalog:
    """A catalog without the checks of ``yamlfile``, which the saved one has passed; an empty one if it is damaged."""
    import yaml

    try:
        return Catalog.model_validate(yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError):  # pydantic's errors are ValueErrors
        return Catalog(updated=date.min, distributions={})


def _explained(err: ValidationError, path: Path) -> Iterator[str]:
    for problem in err.errors():
        keys = [str(key) for key in problem["loc"] if key != "[key]"]
        where = ".".join(keys)
        if problem["type"] == "extra_forbidden":
            known = {1: Catalog.model_fields, 3: Entry.model_fields}.get(len(keys), Checked.model_fields)
            yield f"{path}: {where}: there is no such key.{did_you_mean(keys[-1], known)} Known: {', '.join(known)}"
        elif problem["type"] == "missing":
            yield f"{path}: {where}: missing"
        else:
            said = "" if problem["type"] == "value_error" else f"{problem['input']!r:.80}: "
            yield f"{path}: {where}{': ' if where else ''}{said}{problem['msg'].removeprefix('Value error, ')}"
