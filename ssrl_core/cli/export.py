"""``ssrl export``: samples of a mix or a task as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..export import export
from ..export.rows import Layout
from ..mix import SplitName
from .terminal import counted, progress_bar
from .what import Seed, Size, Source, What, open_mix


def as_text(manifest: Mapping[str, Any], folder: Path) -> str:
    """The manifest of the export in a folder, for a terminal."""
    size = sum(shard["bytes"] for shard in manifest["shards"])
    lines = [f"{manifest['rows']} samples in {len(manifest['shards'])} shards, {size / 1e6:.1f} MB -> {folder}"]
    for task, reasons in manifest["rejected"].items():
        lines.append(f"  {task}: rejected images: {counted(reasons)}")
    for uri, facts in manifest["sources"].items():
        if facts["skipped"]:
            lines.append(f"  {uri}: skipped: {counted(facts['skipped'])}")
    return "\n".join(lines)


def command(
    what: What,
    output: Annotated[Path, typer.Option("-o", help="Folder for the shards. The same command resumes the export.")],
    samples: Annotated[
        int | None, typer.Option("-n", min=1, help="Number of samples, from the first; the whole split by default.")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="The split to export.")] = "train",
    source: Source = None,
    size: Size = None,
    seed: Seed = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time: 1 by default; on a cluster, its number of CPUs.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Use a Ray cluster, all nodes of which see the folder.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="With --ray: address of the cluster; by default that of this machine, or a new one."),
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples in a shard.")] = 1000,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="Quality of JPEG images; PNG by default.")] = None,
    files: Annotated[bool, typer.Option("--files", help="Keep images as files next to the shards.")] = False,
    layout: Annotated[Layout, typer.Option("--for", help="The trainer whose columns the rows have.")] = "verl",
) -> None:
    if address and not ray:
        raise typer.BadParameter("this is the address of a Ray cluster: add --ray", param_hint="--address")
    mix = open_mix(what, split=split, samples=samples, source=source, size=size, seed=seed)
    with progress_bar() as on_progress:
        manifest = export(
            mix, output, samples=samples, workers=workers, ray=ray, address=address,
            shard_size=shard_size, jpeg=jpeg, files=files, layout=layout, on_progress=on_progress,
        )  # fmt: skip
    typer.echo(as_text(manifest, output))
