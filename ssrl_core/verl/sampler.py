"""verl's replay buffer, polled more often."""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class PromptReplayBuffer(ReplayBuffer):
    """verl looks for finished rollouts every 2 seconds, which is most of a small model's step. This looks five times
    a second (``trainer.v1.sampler.custom_sampler``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"poll_interval": 0.2, **kwargs})
