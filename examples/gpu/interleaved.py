"""A dataset with batches of our dataset and of verl's own dataset in turns, over the same samples.

``data.train_files=[MIX, SHARD, SHARD...]`` names a mix and its export. The pairs of steps are ordered A B, B A, A B and
so on, so that a drift in the speed of the machine favours neither.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset
from verl.utils.dataset.rl_dataset import RLHFDataset

from ssrl_core.verl.dataset import MixDataset


def is_ours(step: int) -> bool:
    """Whether a step, counted from 1, has a batch of our dataset."""
    pair, second = divmod(step - 1, 2)
    return (pair + second) % 2 == 0


class Interleaved(Dataset[dict[str, Any]]):
    """The exported samples twice: a batch from each dataset in turns. Without shards, our dataset alone."""

    def __init__(self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1):
        mix, *shards = [data_files] if isinstance(data_files, str) else list(data_files)
        self.ours = MixDataset(mix, tokenizer, config)
        self.stock = RLHFDataset(shards, tokenizer, config, processor) if shards else None
        self.batch = config.train_batch_size

    def __len__(self) -> int:
        return len(self.ours) if self.stock is None else 2 * len(self.stock)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.stock is None:  # validation
            return self.ours[index]
        step, place = divmod(index, self.batch)
        rows = self.ours if is_ours(step + 1) else self.stock
        return rows[step // 2 * self.batch + place]

    @classmethod
    async def process_multi_modal_info(cls, messages: list[dict[str, Any]], **kwargs: Any) -> Any:
        """The images of a prompt, from the dataset that made it."""
        ours = any("recipe" in part for message in messages for part in message["content"])
        return await (MixDataset if ours else RLHFDataset).process_multi_modal_info(messages, **kwargs)
