"""Ends a run after its current step, with a checkpoint, when ``ssrl train`` asks for it by a file in the run's folder.

verl 0.9.1 has no such request. Its check of a time limit (``trainer.esi_redundant_time``) is not in the trainer that it
uses by default. ``workers`` installs this in verl's processes. The trainer may run on another node, which sees the
folder because it writes the checkpoints there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REQUEST = ".stop"
"""The file that asks for the end."""

CHECKPOINTED = "latest_checkpointed_iteration.txt"
"""verl's file in a run's folder that holds the step of the last complete checkpoint."""


def last_saved(folder: Path) -> int | None:
    """The step of the last complete checkpoint in the folder of a run; None if there is none."""
    try:
        return int((folder / CHECKPOINTED).read_text())
    except (OSError, ValueError):
        return None


def is_saving(folder: Path, *, since: float) -> bool:
    """Whether verl is writing a checkpoint.

    Args:
        folder: of the run.
        since: when the run began, in seconds since the epoch. Incomplete checkpoints with older files are of a run that
            died.
    """
    whole = last_saved(folder) or 0
    for path in folder.glob("global_step_*"):
        step = path.name.rpartition("_")[2]
        if step.isdigit() and int(step) > whole and any(part.stat().st_mtime >= since for part in path.rglob("*")):
            return True
    return False


def end_on_request() -> None:
    """Make verl's trainers end when they are asked to. The trainers for PPO and for SFT have no hook for it."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    fit = PPOTrainer.fit

    def fit_until_asked(self: Any, *args: Any, **kwargs: Any) -> None:
        end_step, folder = self.on_step_end, Path(self.config.trainer.default_local_dir)

        def on_step_end() -> None:  # before the rollout engine takes the memory again, as verl's own checkpoints
            if (folder / REQUEST).exists():
                if last_saved(folder) != self.global_steps:
                    self._save_checkpoint()
                self.total_training_steps = self.global_steps
            end_step()

        self.on_step_end = on_step_end
        fit(self, *args, **kwargs)

    PPOTrainer.fit = fit_until_asked  # type: ignore[method-assign]
    if trainer := getattr(sys.modules["__main__"], "SFTTrainer", None):  # torchrun runs its module as a program
        _end_sft_on_request(trainer)


def _end_sft_on_request(trainer: Any) -> None:
    import torch

    lengths = trainer._get_batch_seqlens

    def lengths_unless_asked(self: Any, data: Any) -> Any:  # verl calls this before each update
        asked = torch.tensor((Path(self.config.trainer.default_local_dir) / REQUEST).exists(), device=self.device_name)
        asked = asked.int()
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)  # all processes end at the same step
        if asked:
            self.total_training_steps = 0  # which makes this step the last one
        return lengths(self, data)

    trainer._get_batch_seqlens = lengths_unless_asked
