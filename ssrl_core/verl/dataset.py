"""A mix as verl's datasets. The mix file is verl's data file: ``data.train_files=mix.yaml``.

For ``data.val_files``, ``mix.yaml#validation`` or ``mix.yaml#heldout`` names a split.

A row of the dataset for reinforcement learning carries the recipe of its sample instead of the images. verl copies a
row for each rollout and keeps the copies until the step ends, so images in rows can fill the memory of the host. Each
sample is therefore made twice: in verl's dataloader for the prompt and the truth of its row, and in the process of the
rollouts for its images. Means over the five tasks on photographs and RGB-D frames, size 448: 9 ms of processor time and
1 KB for a row; 7 ms and 550 KB for its images. The second making of 256 prompts costs 2 s of processor time, shared by
all agent loops; with images in the rows, 5 rollouts of each would take 700 MB. ``timing_s/data_fetch`` and
``timing_s/render`` are the times in a run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Any

import cv2
import torch
from PIL import Image
from torch.utils.data import Dataset, DistributedSampler
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

from ..errors import MixError
from ..form import opens_thinking
from ..mix import Mix, SplitName, load_mix
from ..models.loading import written
from ..models.tokens import user_message
from ..reward import columns, right_completion
from ..sample import render
from ..types import Recipe
from .form import check_form, turn_of


def open_mix(data_files: str | Sequence[str]) -> Mix:
    """The mix that verl's ``data.train_files`` or ``data.val_files`` names, optionally followed by ``#`` and a split.

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
    """The number of rows of a dataset. In verl, a limit of -1 means no limit."""
    return min(len(mix), max_samples) if max_samples > 0 else len(mix)


class MixDataset(Dataset[dict[str, Any]]):
    """verl's RL dataset over a mix (``data.custom_cls``). Makes rows on access; a row takes less than 2 KB."""

    def __init__(
        self, data_files: str | Sequence[str], tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1
    ) -> None:
        self.mix = open_mix(data_files)
        self.length = _length(self.mix, max_samples)
        self.opened: bool | None = None  # unknown without a template
        if (template := processor or tokenizer) is not None:
            begun = written(template, settings=(config or {}).get("apply_chat_template_kwargs"))
            self.opened = opens_thinking(begun)
            check_form(self.mix[0], self.mix.config, template, begun)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.mix[index]
        recipe = {"recipe": example.recipe.to_json()}  # of the whole sample; the first image carries it
        return {
            **columns(
                example,
                format_weight=self.mix.config.format_weight,
                thinking=self.mix.config.thinking,
                opened=self.opened,
            ),
            "raw_prompt": [user_message(example.prompt, lambda k: {"type": "image"} | ({} if k else recipe))],
            "extra_info": {"index": index},
            "index": index,
            "tools_kwargs": {},
            "interaction_kwargs": {},
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),  # verl requires a tensor in each batch
        }

    @classmethod
    async def process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: Any
    ) -> tuple[list[Image.Image] | None, None, None]:
        """The images of a prompt, None for videos, None for audio. Renders the recipe in the prompt, in a thread."""
        recipes = [part["recipe"] for message in messages for part in message["content"] if "recipe" in part]
        if not recipes:
            return None, None, None
        images = await asyncio.get_running_loop().run_in_executor(None, _RENDERED.images, recipes[0])
        return list(images), None, None


cv2.setNumThreads(1)  # verl makes samples in many processes and threads; more threads in OpenCV would compete


class _Rendered:
    """A cache of the images of recipes. If the rollouts of a prompt ask at once, one renders and the others wait."""

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
    """verl's SFT dataset over a mix. The completion of each row is made from the truth of its sample.

    The tokens of a row are those of a prompt as in a rollout, of the completion, and of the end of the turn. A chat
    template may show past completions in another way, e.g. without their thinking; a rollout never sees that.
    """

    def __init__(self, parquet_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1):
        self.completion = (config or {}).get("completion")
        super().__init__(parquet_files, tokenizer, config, processor, max_samples)

    def _download(self) -> None:
        """Does nothing: a mix is not downloaded."""

    def _read_files_and_process(self) -> None:
        mix, template = open_mix(self.parquet_files), self.processor or self.tokenizer
        self.turn = turn_of(template, self.apply_chat_template_kwargs)
        check_form(mix[0], mix.config, template, self.turn.written, completion=self.completion)
        self.messages = range(_length(mix, self.max_samples))
        # Only a schedule needs an order. Without one, verl's shuffled order is kept.
        places = _places(len(self.messages)) if len(mix.stages) > 1 else self.messages
        complete = partial(
            right_completion, thinking=mix.config.thinking, written=self.turn.written, template=self.completion
        )
        self.dataframe = _LazyRows(mix, places, complete=complete)
        self.tools = self.enable_thinking = None

    def _process_single_message(self, index: int, message: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Token ids, loss mask, attention mask and further inputs of a message."""
        if message["role"] != "assistant":
            return super()._process_single_message(index, message, *args, **kwargs)
        completion = "".join(part["text"] for part in message["content"])
        start, rest = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (self.turn.start, completion + self.turn.end)
        )
        ids = torch.tensor(start + rest)
        return ids, torch.tensor([0] * len(start) + [1] * len(rest)), torch.ones_like(ids), {}

    def sanity_check(self, *args: Any) -> None:
        """Does nothing: verl compares with the template's view of past turns."""


def _places(length: int) -> list[int]:
    """Row -> its position in the first epoch of verl's SFT trainer, which always shuffles with this sampler.

    A dataset whose row i is the sample at this position of the mix makes the trainer see the mix in its own order, for
    any number of processes.
    """
    rows: Any = range(length)
    order: list[int] = list(DistributedSampler(rows, num_replicas=1, rank=0, shuffle=True))
    return torch.tensor(order).argsort().tolist()


class _LazyRows:
    """The part of a pandas data frame that verl's SFT dataset uses: ``frame.iloc[i].to_dict()``."""

    def __init__(self, mix: Mix, places: Sequence[int], *, complete: Callable[[str], str]) -> None:
        self._mix, self._places, self._complete = mix, places, complete

    @property
    def iloc(self) -> _LazyRows:
        return self

    def __getitem__(self, index: int) -> _Row:
        example = self._mix[self._places[index]]
        return _Row(
            messages=[
                {"role": "user", "content": example.prompt},
                {"role": "assistant", "content": self._complete(example.sample.truth)},
            ],
            images=list(example.sample.images),
        )


class _Row(dict[str, Any]):
    def to_dict(self) -> dict[str, Any]:
        return dict(self)
