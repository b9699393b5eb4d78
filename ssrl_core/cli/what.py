"""What several commands work on: a mix file, or a task at all its levels. Its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..mix import Mix, SplitName, load_mix, single_task_mix

What = Annotated[str, typer.Argument(help="A mix file, or the name of a task: all its levels in equal shares.")]
Source = Annotated[str | None, typer.Option(help="For a task: URI of the images; synthetic: by default.")]
Size = Annotated[
    int | None,
    typer.Option(min=64, max=4096, help="For a task: pixels of the longer side of an image; 448 by default."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="For a task: seed of its samples; 0 by default.")]


def open_mix(
    what: str,
    *,
    split: SplitName,
    samples: int | None = None,
    source: str | None = None,
    size: int | None = None,
    seed: int | None = None,
) -> Mix:
    """The mix of a file; for the name of a task, a mix of all its levels in equal shares.

    Args:
        what: the path of a mix file, or the name of a task.
        split: see ``Mix``.
        samples: for a task, the length of the mix; None takes the default.
        source, size, seed: for a task, keys of the mix; None takes the default.

    Raises:
        SSRLError: one of ``source``, ``size``, ``seed`` is given for a mix file.
        MixError, PluginError, SourceError: see ``load_mix``.
    """
    keys: dict[str, Any] = {"source": source, "size": size, "seed": seed}
    if not Path(what).suffix and not Path(what).is_file():
        given = {key: value for key, value in (keys | {"samples": samples}).items() if value is not None}
        return single_task_mix(what, split=split, **given)
    for key, value in keys.items():
        if value is not None:
            raise SSRLError(f"--{key} {value}: no effect on a mix file. Write the {key} into {what}")
    return load_mix(what, split=split)
