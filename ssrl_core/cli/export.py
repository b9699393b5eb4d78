"""``ssrl export``: samples of a mix as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import progress_bar, split_name


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the shards; started again, the export goes on.")],
    samples: Annotated[
        int | None, typer.Option("-n", min=1, help="The first so many; the whole split by default.")
    ] = None,
    split: Annotated[str, typer.Option(help="train or heldout.")] = "train",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time: 1 by default; on a cluster, its CPUs.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On a Ray cluster; DIR is one that all nodes see.")] = False,
    address: Annotated[
        str | None, typer.Option(help="With --ray: of the cluster; that of this machine, or a new one, by default.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples of a shard.")] = 1000,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="Quality of JPEG; PNG by default.")] = None,
    files: Annotated[bool, typer.Option("--files", help="Keep images as files next to the shards.")] = False,
) -> None:
    """Write samples as Parquet, which verl's own dataset and datasets.load_dataset read."""
    from ..export import export, summary

    if address and not ray:
        raise typer.BadParameter("is of a Ray cluster: add --ray", param_hint="--address")
    with progress_bar() as show:
        manifest = export(
            mix, output, samples=samples, split=split_name(split), workers=workers, ray=ray, address=address,
            shard_size=shard_size, jpeg=jpeg, files=files, on_progress=show,
        )  # fmt: skip
    typer.echo(summary(manifest, output))
