"""Whether training can have seen an image that an evaluation shows.

A source's images are split by a hash of their ids: what a mix with a smaller ``heldout.fraction`` holds out is part of
what one with a larger fraction does. A run of ``ssrl train`` keeps its mix next to its checkpoints, so that a model on
this machine can be asked what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..mix import Mix
from ..mix.file import read_mix
from .folder import EvaluationError


def check_heldout(mix: Mix, *, model: str | None = None, trained_on: Sequence[Path] = ()) -> list[str]:
    """What is known about the images of a mix and those of training, in sentences.

    Args:
        mix: that of the evaluation.
        model: a folder; where it lies in that of a run, the run's mix is looked at.
        trained_on: more mixes that the model was trained on.

    Raises:
        EvaluationError: training could draw images that the evaluation holds out.
        MixError: one of the mixes cannot be read.
    """
    if mix.split == "train":
        return ["These are images that training draws from: nothing here is held out."]
    fraction = mix.config.heldout.fraction
    notes = [f"The images are the {100 * fraction:g}% of each source that training with this mix never draws."]
    paths = [*trained_on, *_of_run(model)]
    for path in paths:
        training = read_mix(path)[0]
        shared = set(mix.config.sources) & set(training.sources)
        if shared and training.heldout.fraction < fraction:
            raise EvaluationError(
                f"training has seen images of this evaluation: {path} holds out {training.heldout.fraction:g} of "
                f"{', '.join(sorted(shared))}, {mix.path} holds out {fraction:g}. Evaluate on "
                f"heldout: {{fraction: {training.heldout.fraction:g}}} or less"
            )
        drew = f"drew none of them from {', '.join(sorted(shared))}" if shared else "used other sources"
        notes.append(f"Training by {path} {drew}.")
    if not paths:
        notes.append("No record of the model's training was looked at (--trained-on).")
    return notes


def _of_run(model: str | None) -> list[Path]:
    """The mixes of the runs in whose folder a model lies."""
    folders = Path(model).resolve().parents if model and Path(model).is_dir() else ()
    runs = [folder for folder in folders if (folder / "mix.yaml").is_file() and (folder / "command.txt").is_file()]
    return sorted(runs[0].glob("mix*.yaml")) if runs else []
