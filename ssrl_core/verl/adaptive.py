"""A dataset that prefers prompts of the kinds that the policy sometimes solves; off unless a recipe names it.

A prompt whose rollouts are all right, or all wrong, gives GRPO no advantage. The dataset goes through the mix in its
order and skips samples, the more often the fewer prompts of their kind (``task@level``) were of use lately:

    data:
      custom_cls: {name: AdaptiveMixDataset}
      dataloader_num_workers: 0        # what is skipped depends on the last step, so nothing is made in advance

It is a dataset and no sampler because verl 0.9.1 has no setting for a sampler. The choice depends on the mix, the
outcomes so far and nothing else; where it stands is saved with the dataloader's state, so that a resumed run goes on
with the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..seeding import generator
from .dataset import MixDataset

LEAST = 0.1
"""Share of a kind's samples that is never skipped, so that the policy's progress on it shows."""

MEMORY = 0.9
"""Weight of what was known of a kind before a step, against what the step showed."""


class AdaptiveMixDataset(MixDataset):
    """A mix's training split, with samples left out; row ``i`` is the ``i``-th one that was taken.

    The held-out split is that of ``MixDataset``.
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
        while True:  # the best kind is never skipped
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
        """Take in the outcomes of a step: ``task@level`` -> how many of its prompts were of use, of how many."""
        for kind, (some, all_) in useful.items():
            before = self._useful.get(kind)
            share = some / all_
            self._useful[kind] = share if before is None else MEMORY * before + (1 - MEMORY) * share

    def state_dict(self) -> dict[str, Any]:
        """What the dataloader saves with a checkpoint."""
        return {"next": self._next, "useful": dict(self._useful)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was called."""
        self._next, self._useful = state["next"], dict(state["useful"])
