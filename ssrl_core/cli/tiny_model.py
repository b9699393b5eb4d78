"""``ssrl tiny-model``: a tiny untrained model for experiments on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SSRLError
from ..mix import load_mix
from ..models.tiny import build_tiny_model


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file; the tokenizer is trained on its prompts.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the model; must not exist, or be empty.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SSRLError(f"{folder} exists and is not changed: name a new folder")
    parameters = build_tiny_model(load_mix(mix), folder, seed=seed)
    typer.echo(f"{parameters / 1e6:.2f} M parameters -> {folder}")
