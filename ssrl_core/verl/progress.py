"""verl's metrics as one line a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_SHOWN = {
    "train/loss": "loss {:.3f}",
    "val/loss": "validation loss {:.3f}",
    "critic/score/mean": "reward {:.3f}",
    "response_length/mean": "length {:.1f}",
    "actor/entropy": "entropy {:.2f}",
    "train/grad_norm": "grad {:.2f}",
    "actor/grad_norm": "grad {:.2f}",
    "training/rollout_probs_diff_max": "rollout/actor gap {:.0e}",
    "timing_s/step": "{:.1f} s",
}


class StepLine:
    """Prints a line for each step that verl logs, and the accuracies of each validation."""

    def __init__(self, steps: int | None) -> None:
        self._steps, self._start = steps, time.monotonic()

    def __call__(self, step: int, metrics: Mapping[str, Any]) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        at = f"[{minutes:02}:{seconds:02}] step {step}" + (f"/{self._steps}" if self._steps else "")
        # verl writes null for NaN, such as the loss of a validation split that is smaller than a batch.
        parts = [text.format(metrics[key]) for key, text in _SHOWN.items() if metrics.get(key) is not None]
        if parts:
            print(at, *parts, sep="  ", flush=True)
        if found := accuracies(metrics):
            print(at, "validation accuracy", *(f"{k} {v:.2f}" for k, v in found.items()), sep="  ", flush=True)


def accuracies(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Validation accuracy by ``task@level`` from verl's metrics of a step; empty if the step had no validation."""
    found = {}
    for key, value in metrics.items():
        parts = key.split("/")
        if parts[0] == "val-core" and parts[-2] == "acc" and parts[-1].startswith("mean@") and value is not None:
            found["/".join(parts[1:-2])] = float(value)
    return found
