"""A dataset that prefers prompts of the kinds that the policy sometimes solves. A recipe enables it by name.

A prompt whose rollouts are all right, or all wrong, gives GRPO no advantage. The dataset takes the samples of the mix
in order and skips some of them. The fewer prompts of a kind (``task@level``) were useful in recent steps, the more
samples of this kind it skips:

    data:
      custom_cls: {name: AdaptiveMixDataset}
      dataloader_num_workers: 0        # the choice depends on the last step, so no row is made in advance

It is a dataset and not a sampler because verl 0.9.1 has no setting for a sampler. The choice depends only on the mix
and the outcomes so far. Its state is saved with that of the dataloader, so a resumed run continues with the same
samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..seeding import generator
from .dataset import MixDataset

LEAST = 0.1
"""Lower bound of the share of a kind's samples that are taken, so that progress of the policy on them is noticed."""

MEMORY = 0.9
"""Weight of the earlier estimate for a kind in its moving average; the last step has the rest."""


class AdaptiveMixDataset(MixDataset):
    """The training split of a mix without the skipped samples. Row ``i`` is the ``i``-th sample that was taken.

    For the other splits it is the same as ``MixDataset``.
    """

    def __init__(self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1):
        super().__init__(data_files, tokenizer, config, processor, max_samples)
        self._next = 0
        self._useful: dict[str, float] = {}
        if len(self.mix.stages) > 1:
            raise RecipeError(f"{self.mix.path}: a schedule and data.custom_cls.name=AdaptiveMixDataset: choose one")
        if config is not None and (config.get("dataloader_num_workers") or config.get("shuffle")):
            raise RecipeError("AdaptiveMixDataset needs data.dataloader_num_workers=0 and data.shuffle=false")

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.mix.split != "train":
            return super().__getitem__(index)
        while True:  # ends, because the best kind is never skipped
            taken = self._next % len(self.mix)
            draw = generator(self.mix.config.seed, stream="adaptive", index=self._next).random()
            self._next += 1
            if draw < self.chance(taken):
                return super().__getitem__(taken)

    def chance(self, index: int) -> float:
        """Probability in [LEAST, 1] that the sample at an index of the mix is taken."""
        best = max(self._useful.values(), default=0.0)
        if best == 0:
            return 1.0
        slot = self.mix.slot(index)
        return max(LEAST, self._useful.get(f"{slot.task}@{slot.level}", best) / best)

    def learn(self, useful: Mapping[str, tuple[int, int]]) -> None:
        """Update the estimates: ``task@level`` -> number of useful prompts in a step, number of all its prompts."""
        for kind, (some, all_) in useful.items():
            before = self._useful.get(kind)
            share = some / all_
            self._useful[kind] = share if before is None else MEMORY * before + (1 - MEMORY) * share

    def state_dict(self) -> dict[str, Any]:
        """The state that the dataloader saves with a checkpoint."""
        return {"next": self._next, "useful": dict(self._useful)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from ``state_dict``."""
        self._next, self._useful = state["next"], dict(state["useful"])
