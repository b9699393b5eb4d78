"""verl's single-turn agent loop with a seed for every rollout, and with the times of its parts.

Selected with ``rollout.agent.default_agent_loop=ssrl_single_turn``. ``ssrl_core.verl.sampler`` turns the times into
metrics.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any

import ray
import torch
from PIL import Image
from transformers import BatchFeature
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from ..seeding import generator
from .rollout import Place, forms_waves, server_name

TRAJECTORY: ContextVar[Mapping[str, Any]] = ContextVar("trajectory")
"""verl's description of the current rollout, of which an agent loop needs ``validate``; set in ``workers``."""

_SEEDED = ("vllm", "transformers")
"""Rollout engines whose sampling parameters have a ``seed`` per request."""


def rollout_seed(run_seed: int, *, source: str, index: Any, number: int, step: int | None) -> int:
    """The seed of one rollout, in [0, 2**63).

    Args:
        run_seed: seed of the run, at least 0; in a recipe ``actor_rollout_ref.rollout.seed``, which is 42 by default.
        source: the prompt's ``data_source``.
        index: the prompt's index in its dataset.
        number: ordinal of the rollout among those of its prompt, from 0.
        step: the training step, so that a prompt that comes again is explored anew; None in a validation, so that all
            validations sample with the same random numbers and differ only by the policy.
    """
    stream = f"rollout/{'validation' if step is None else step}/{source}/{index}"
    return int(generator(run_seed, stream=stream, index=number).integers(2**63))


class TimedAgentLoop(SingleTurnAgentLoop):
    """One rollout.

    ``extra_fields["spans"]`` of its output maps ``data`` and ``generation`` to (begin, end) in seconds since the epoch.
    """

    _data: tuple[float, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        torch.set_num_threads(1)  # many processes work on small tensors here, and their threads would only compete
        share_processing(self.processor)

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The images of a prompt."""
        begin = time.time()
        images = await super().process_multi_modal_info(messages)
        self._data = begin, time.time()
        return images

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """verl's output of one rollout. Raises whatever kept the rollout from its end."""
        seed, place = self._seed_and_place(kwargs)
        sampling = dict(sampling_params)
        if self.rollout_config.name in _SEEDED:
            sampling["seed"] = seed
        if place is not None:
            sampling["place"] = place
        try:
            output = await super().run(sampling, **kwargs)
        except BaseException:
            if place is not None:  # or the server would wait for this rollout
                ray.get_actor(server_name(0)).withdraw.remote(place)
            raise
        end = time.time()
        output.extra_fields["spans"] = {
            "data": self._data,
            "generation": (end - output.metrics.generate_sequences, end),
        }
        return output

    def _seed_and_place(self, row: Mapping[str, Any]) -> tuple[int, Place | None]:
        """The seed of this rollout, and its place where rollouts form waves.

        Args:
            row: columns of the prompt, and verl's ``uid``, ``session_id`` and ``global_steps``.
        """
        trajectory = TRAJECTORY.get({})
        validate = bool(trajectory.get("validate", False))
        number = int(row.get("session_id", trajectory.get("rollout_n", 0)))
        step = None if validate else int(row.get("global_steps", trajectory.get("step", 0)))
        source, index = str(row.get("data_source", "")), str(row.get("index", 0))
        seed = rollout_seed(int(self.rollout_config.seed), source=source, index=index, number=number, step=step)
        if not forms_waves(self.config) or "uid" not in row:
            return seed, None
        rollouts = self.rollout_config.val_kwargs.n if validate else self.rollout_config.n
        return seed, Place(str(row["uid"]), (source, index), number, rollouts)


def share_processing(processor: Any) -> None:
    """Make a processor prepare the images of a prompt once, in place. verl asks three times for each rollout."""
    if processor is not None and not isinstance(processor.image_processor, SharedProcessing):
        processor.image_processor = SharedProcessing(processor.image_processor)


class SharedProcessing:
    """An image processor with a cache: the rollouts of a prompt have the same image objects.

    Args:
        processor: an image processor of transformers.
        capacity: size of the cached tensors in bytes, at most; the least recently used results are dropped first.
    """

    def __init__(self, processor: Any, *, capacity: int = 256 * 2**20) -> None:
        self._processor, self._capacity, self._lock = processor, capacity, Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, BatchFeature]] = OrderedDict()
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Sequence[Image.Image], **settings: Any) -> BatchFeature:
        """The result of the processor. Its tensors are shared and must not be changed."""
        key = (*map(id, images), repr(sorted(settings.items())))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return BatchFeature(dict(self._kept[key][1]))
        result = self._processor(images=images, **settings)
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
                self._kept[key] = (list(images), result)  # an image that is referenced here keeps its id
                self._size += _size(result)
            while len(self._kept) > 1 and self._size > self._capacity:
                self._size -= _size(self._kept.popitem(last=False)[1][1])
        return BatchFeature(dict(result))


def _size(result: BatchFeature) -> int:
    return sum(value.nbytes for value in result.values() if isinstance(value, torch.Tensor))
