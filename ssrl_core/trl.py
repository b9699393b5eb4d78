"""A mix for TRL's ``GRPOTrainer``: a data set, and a reward function.

    from trl import GRPOConfig, GRPOTrainer
    from ssrl_core.trl import dataset, reward

    trainer = GRPOTrainer(
        model, reward_funcs=reward, train_dataset=dataset("mix.yaml"), args=GRPOConfig(..., shuffle_dataset=False)
    )

``shuffle_dataset=False`` keeps the order of the mix: every batch has the stated proportions, and a schedule is obeyed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .errors import SSRLError
from .mix import Mix, SplitName, load_mix
from .models.tokens import user_message
from .reward import Key, score_all

if TYPE_CHECKING:
    from datasets import Dataset


def dataset(mix: str | Path | Mix, *, split: SplitName = "train") -> Dataset:
    """The samples of a mix as a map-style data set. A sample is made when its row is read, and takes no disk.

    Columns: ``prompt``, one message of a user whose content has a place for each image; ``images``, Pillow images;
    ``key``, all that the reward depends on besides the completion; ``recipe``, which rebuilds the sample. The last two
    are JSON.

    Args:
        mix: path of a mix file, or a mix.
        split: of a mix file; a mix has its own.

    Raises:
        SSRLError: ``datasets`` is not installed, or see ``load_mix``.
    """
    try:
        from datasets import Dataset
    except ImportError as err:
        raise SSRLError("TRL is not installed: pip install 'ssrl-core[trl]'") from err
    samples = mix if isinstance(mix, Mix) else load_mix(mix, split=split)
    return Dataset.from_dict({"index": range(len(samples))}).with_transform(_Rows(samples))


class _Rows:
    """The rows of indices. The trainer asks for each index once per completion; the last rows are kept."""

    def __init__(self, mix: Mix) -> None:
        self._mix = mix
        self._row = lru_cache(maxsize=64)(self._make)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Rows, (self._mix,)

    def __call__(self, batch: dict[str, Sequence[int]]) -> dict[str, list[Any]]:
        rows = [self._row(index) for index in batch["index"]]
        return {name: [row[name] for row in rows] for name in ("prompt", "images", "key", "recipe")}

    def _make(self, index: int) -> dict[str, Any]:
        example, config = self._mix[index], self._mix.config
        return {
            "prompt": [user_message(example.prompt, lambda number: {"type": "image"})],
            "images": list(example.images),
            "key": Key.of(example, format_weight=config.format_weight, thinking=config.thinking).to_json(),
            "recipe": example.recipe.to_json(),
        }


def reward(
    completions: Sequence[str | Sequence[dict[str, Any]]], key: Sequence[str], log_metric: Any = None, **_: Any
) -> list[float]:
    """The rewards of completions of rows of ``dataset``, as GRPOTrainer calls it; see ``ssrl_core.reward.score_all``.

    Logs the accuracy, the share of right forms and the failures of verifiers, by task and level: ``general@1/acc``.

    Args:
        completions: texts, or lists of one message each.
        key: the column ``key`` of their rows.
        log_metric: the trainer's function for further metrics.
    """
    keys = [Key.from_json(text) for text in key]
    verdicts: list[dict[str, Any]] = score_all(
        [(of, _text(completion)) for of, completion in zip(keys, completions, strict=True)]
    )
    if log_metric is not None:
        found = defaultdict[str, list[float]](list)
        for of, verdict in zip(keys, verdicts, strict=True):
            for name in ("acc", "format", "error"):
                found[f"{of.task}@{of.level}/{name}"].append(verdict[name])
        for name, values in found.items():
            log_metric(name, fmean(values))
    return [verdict["score"] for verdict in verdicts]


def _text(completion: str | Sequence[dict[str, Any]]) -> str:
    """The text of a completion, also of one whose content is a list of parts."""
    content: Any = completion if isinstance(completion, str) else completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
