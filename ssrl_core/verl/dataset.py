"""A mix as verl's datasets: rows carry recipes, images are rendered where they are needed.

The mix file is the data file: ``data.train_files=mix.yaml`` and ``data.val_files=mix.yaml#validation``.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any

import cv2
import torch
from PIL import Image
from torch.utils.data import Dataset, DistributedSampler
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

from ..answers import COMPLETION
from ..errors import MixError
from ..mix import Example, Mix, SplitName, load_mix
from ..reward import Key
from ..sample import render
from ..types import Recipe


def open_mix(data_files: str | Sequence[str]) -> Mix:
    """The mix that verl's ``data.train_files`` or ``data.val_files`` names; ``#`` and a split may follow the file.

    Raises:
        MixError: several files are named, or there is no such mix.
    """
    files = [data_files] if isinstance(data_files, str) else list(data_files)
    if len(files) != 1:
        raise MixError(f"expected one mix file, got {files}: name several tasks inside one mix instead")
    splits: tuple[SplitName, ...] = ("validation", "heldout")
    for split in splits:
        if files[0].endswith(f"#{split}"):
            return load_mix(files[0].removesuffix(f"#{split}"), split=split)
    return load_mix(files[0])


def _length(mix: Mix, max_samples: int) -> int:
    """Rows of a dataset; verl writes -1 for no limit."""
    return min(len(mix), max_samples) if max_samples > 0 else len(mix)


class MixDataset(Dataset[dict[str, Any]]):
    """verl's RL dataset over a mix (``data.custom_cls``): map-style, constant in memory, less than 2 KB a row."""

    def __init__(
        self, data_files: str | Sequence[str], tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1
    ) -> None:
        self.mix = open_mix(data_files)
        self.length = _length(self.mix, max_samples)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.mix[index]
        return {
            "data_source": f"{example.recipe.task}@{example.recipe.level}",
            "raw_prompt": [{"role": "user", "content": _content(example)}],
            "reward_model": {
                "style": "rule",
                "ground_truth": Key.of(example, format_weight=self.mix.config.format_weight).to_json(),
            },
            "extra_info": {"index": index},
            "index": index,
            "tools_kwargs": {},
            "interaction_kwargs": {},
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),  # verl's batches need a tensor
        }

    @classmethod
    async def process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: Any
    ) -> tuple[list[Image.Image] | None, None, None]:
        """The images of a prompt, rendered from the recipe in it, off the event loop; no videos, no audio."""
        recipes = [part["recipe"] for message in messages for part in message["content"] if "recipe" in part]
        if not recipes:
            return None, None, None
        images = await asyncio.get_running_loop().run_in_executor(None, _RENDERED.images, recipes[0])
        return list(images), None, None


def _content(example: Example) -> list[dict[str, str]]:
    """A prompt as chat-template parts. The first image carries the recipe of the whole sample."""
    parts: list[dict[str, str]] = []
    for text in re.split("(<image>)", example.prompt):
        if text == "<image>":
            first = not any(part["type"] == "image" for part in parts)
            parts.append({"type": "image"} | ({"recipe": example.recipe.to_json()} if first else {}))
        elif text:
            parts.append({"type": "text", "text": text})
    return parts


cv2.setNumThreads(1)  # many processes and threads of verl make samples at once; OpenCV's own threads only burn time


class _Rendered:
    """The images of the last recipes. The n rollouts of a prompt ask at once: one renders, the others wait for it."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._lock = capacity, Lock()
        self._futures: OrderedDict[str, Future[tuple[Image.Image, ...]]] = OrderedDict()

    def images(self, recipe: str) -> tuple[Image.Image, ...]:
        with self._lock:
            future = self._futures.get(recipe)
            if mine := future is None:
                future = self._futures[recipe] = Future()
            self._futures.move_to_end(recipe)
            while len(self._futures) > self._capacity:
                self._futures.popitem(last=False)
        if mine:
            try:
                future.set_result(render(Recipe.from_json(recipe)).images)
            except BaseException as err:
                with self._lock:
                    self._futures.pop(recipe, None)
                future.set_exception(err)
        return future.result()


_RENDERED = _Rendered(capacity=128)


class MixSFTDataset(MultiTurnSFTDataset):
    """verl's SFT dataset over a mix: every row's completion is made from its truth."""

    def __init__(self, parquet_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1):
        self.completion = (config or {}).get("completion") or COMPLETION
        super().__init__(parquet_files, tokenizer, config, processor, max_samples)

    def _download(self) -> None:
        """Nothing to fetch: the mix is read where it lies."""

    def _read_files_and_process(self) -> None:
        from verl.utils.tokenizer.chat_template import extract_system_prompt_and_generation

        mix = open_mix(self.parquet_files)
        self.messages = range(_length(mix, self.max_samples))
        # Only a schedule needs an order; without one, which sample comes when is left to verl.
        places = _places(len(self.messages)) if len(mix.stages) > 1 else self.messages
        self.dataframe = _LazyRows(mix, places, completion=self.completion)
        self.tools = self.enable_thinking = None
        self.system_prompt, self.generation_prompt = extract_system_prompt_and_generation(
            self.tokenizer, **self.apply_chat_template_kwargs
        )


def _places(length: int) -> list[int]:
    """Row -> its place in the first epoch of verl's SFT trainer, which always shuffles, with this sampler.

    The sample of that place in the row makes the trainer see the mix in its own order, on any number of processes.
    """
    rows: Any = range(length)
    order: list[int] = list(DistributedSampler(rows, num_replicas=1, rank=0, shuffle=True))
    return torch.tensor(order).argsort().tolist()


class _LazyRows:
    """The part of a data frame that verl's SFT dataset uses: ``frame.iloc[i].to_dict()``."""

    def __init__(self, mix: Mix, places: Sequence[int], *, completion: str) -> None:
        self._mix, self._places, self._completion = mix, places, completion

    @property
    def iloc(self) -> _LazyRows:
        return self

    def __getitem__(self, index: int) -> _Row:
        example = self._mix[self._places[index]]
        return _Row(
            messages=[
                {"role": "user", "content": example.prompt},
                {"role": "assistant", "content": self._completion.format(truth=example.sample.truth)},
            ],
            images=list(example.sample.images),
        )


class _Row(dict[str, Any]):
    def to_dict(self) -> dict[str, Any]:
        return dict(self)
