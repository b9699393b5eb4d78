"""verl's single-turn agent loop, which also says when it waited for its images and when it generated.

``rollout.agent.default_agent_loop=ssrl_single_turn``; ``ssrl_core.verl.sampler`` makes metrics of it.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class TimedAgentLoop(SingleTurnAgentLoop):
    """One rollout; ``extra_fields["spans"]`` has the begin and the end of its parts, in seconds since the epoch."""

    _data: tuple[float, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        torch.set_num_threads(1)  # many small tensors in many processes: more threads would wait for each other

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The images of a prompt."""
        begin = time.time()
        images = await super().process_multi_modal_info(messages)
        self._data = begin, time.time()
        return images

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """verl's output."""
        output = await super().run(sampling_params, **kwargs)
        end = time.time()
        output.extra_fields["spans"] = {
            "data": self._data,
            "generation": (end - output.metrics.generate_sequences, end),
        }
        return output
