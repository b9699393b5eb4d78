"""Whether training may have drawn images of an evaluation.

Images are split by a hash of their ids. The held-out images of a mix with a smaller ``heldout.fraction`` are therefore
a subset of those of a mix with a larger fraction. A run of ``ssrl train`` keeps its mix next to its checkpoints, so the
mix that a local model was trained on is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..mix import Mix
from ..mix.file import read_mix
from .folder import EvaluationError


def check_heldout(mix: Mix, *, model: str | None = None, trained_on: Sequence[Path] = ()) -> list[str]:
    """Sentences about the images of an evaluation and of training, for the report.

    Args:
        mix: mix of the evaluation.
        model: path of the model. If it is inside the folder of a run, the mixes of the run are checked.
        trained_on: further mixes that the model was trained on.

    Raises:
        EvaluationError: training could draw images that the evaluation holds out.
        MixError: one of the mixes cannot be read.
    """
    if mix.split == "train":
        return ["Training draws from these images: nothing is held out."]
    fraction = mix.config.heldout.fraction
    notes = [f"The images are the {100 * fraction:g}% of each source that training with this mix never draws."]
    paths = [*trained_on, *_of_run(model)]
    for path in paths:
        training = read_mix(path)[0]
        shared = set(mix.config.sources) & set(training.sources)
        if shared and training.heldout.fraction < fraction:
            raise EvaluationError(
                f"training could draw images of this evaluation: {path} holds out {training.heldout.fraction:g} of "
                f"{', '.join(sorted(shared))}, {mix.path} holds out {fraction:g}. Evaluate on "
                f"heldout: {{fraction: {training.heldout.fraction:g}}} or less"
            )
        drew = f"drew none of them from {', '.join(sorted(shared))}" if shared else "used other sources"
        notes.append(f"Training by {path} {drew}.")
    if not paths:
        notes.append("The mix that the model was trained on is not known (--trained-on).")
    return notes


def _of_run(model: str | None) -> list[Path]:
    """The mixes of the runs in the innermost run folder that contains the model."""
    folders = Path(model).resolve().parents if model and Path(model).is_dir() else ()
    runs = [folder for folder in folders if (folder / "mix.yaml").is_file() and (folder / "command.txt").is_file()]
    return sorted(runs[0].glob("mix*.yaml")) if runs else []
