"""verl's single-turn agent loop, which also says when it waited for its images and when it generated.

``rollout.agent.default_agent_loop=ssrl_single_turn``; ``ssrl_core.verl.sampler`` makes metrics of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class TimedAgentLoop(SingleTurnAgentLoop):
    """One rollout; ``extra_fields["spans"]`` has the begin and the end of its parts, in seconds since the epoch."""

    _data: tuple[float, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        torch.set_num_threads(1)  # many small tensors in many processes: more threads would wait for each other
        share_processing(self.processor)

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


def share_processing(processor: Any) -> None:
    """Let a processor prepare the images of a prompt once, in place: verl asks three times for each of n rollouts."""
    if processor is not None and not isinstance(processor.image_processor, SharedProcessing):
        processor.image_processor = SharedProcessing(processor.image_processor)


class SharedProcessing:
    """An image processor that keeps its last results: the rollouts of a prompt have the same image objects.

    Args:
        processor: of transformers.
        capacity: bytes of tensors that are kept.
    """

    def __init__(self, processor: Any, *, capacity: int = 256 * 2**20) -> None:
        self._processor, self._capacity, self._lock = processor, capacity, Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, BatchFeature]] = OrderedDict()
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Sequence[Image.Image], **settings: Any) -> BatchFeature:
        """As the processor's own; the tensors are shared, and must not be changed."""
        key = (*map(id, images), repr(sorted(settings.items())))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return BatchFeature(dict(self._kept[key][1]))
        result = self._processor(images=images, **settings)
        with self._lock:
            if key not in self._kept:  # else another thread was first
                self._kept[key] = (list(images), result)  # while they are kept, no other image can have their ids
                self._size += _size(result)
            while len(self._kept) > 1 and self._size > self._capacity:
                self._size -= _size(self._kept.popitem(last=False)[1][1])
        return BatchFeature(dict(result))


def _size(result: BatchFeature) -> int:
    return sum(value.nbytes for value in result.values() if isinstance(value, torch.Tensor))
