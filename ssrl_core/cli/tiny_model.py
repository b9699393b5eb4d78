"""``ssrl tiny-model``: a tiny untrained model for trying things out on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SSRLError


def command(
    mix: Annotated[Path, typer.Argument(help="A mix file; the tokenizer is trained on its prompts.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the model.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Build a tiny, untrained model of the Qwen2.5-VL architecture for trying things out on a CPU."""
    from ..mix import load_mix
    from ..models.tiny import build_tiny_model

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SSRLError(f"{folder} exists, and is left as it is: name a new folder")
    parameters = build_tiny_model(load_mix(mix), folder, seed=seed)
    typer.echo(f"{parameters / 1e6:.2f} M parameters -> {folder}")
