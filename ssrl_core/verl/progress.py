"""verl's metrics as one readable line a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_SHOWN = {
    "train/loss": "loss {:.3f}",
    "val/loss": "held-out loss {:.3f}",
    "critic/score/mean": "reward {:.3f}",
    "response_length/mean": "length {:.1f}",
    "actor/entropy": "entropy {:.2f}",
    "train/grad_norm": "grad {:.2f}",
    "actor/grad_norm": "grad {:.2f}",
    "training/rollout_probs_diff_max": "rollout/actor gap {:.0e}",
    "timing_s/step": "{:.1f} s",
}


class StepLine:
    """Prints a line for every step that verl logs, and the held-out accuracies where it validated."""

    def __init__(self, steps: int | None) -> None:
        self._steps, self._start = steps, time.monotonic()

    def __call__(self, step: int, metrics: Mapping[str, Any]) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        at = f"[{minutes:02}:{seconds:02}] step {step}" + (f"/{self._steps}" if self._steps else "")
        # verl writes null for what is not a number, such as the loss over a held-out split smaller than a batch.
        parts = [text.format(metrics[key]) for key, text in _SHOWN.items() if metrics.get(key) is not None]
        if parts:
            print(at, *parts, sep="  ", flush=True)
        heldout = accuracies(metrics)
        if heldout:
            print(at, "held-out accuracy", *(f"{k} {v:.2f}" for k, v in heldout.items()), sep="  ", flush=True)


def accuracies(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Held-out accuracy by ``task@level`` from verl's validation metrics; empty where it did not validate."""
    found = {}
    for key, value in metrics.items():
        parts = key.split("/")
        if parts[0] == "val-core" and parts[-2] == "acc" and parts[-1].startswith("mean@") and value is not None:
            found["/".join(parts[1:-2])] = float(value)
    return found
