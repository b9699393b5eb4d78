"""Reward functions as other trainers call them, for exports in their layouts. A row carries the key of its reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..reward import Key, score_all


def easyr1(reward_inputs: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """``overall`` (the reward), ``accuracy`` and ``format`` of each input with ``response`` and ``ground_truth``."""
    verdicts: list[dict[str, Any]] = score_all(
        [(Key.from_json(given["ground_truth"]), given["response"]) for given in reward_inputs]
    )
    names = {"overall": "score", "accuracy": "acc", "format": "format"}
    return [{name: float(verdict[ours]) for name, ours in names.items()} for verdict in verdicts]


def swift(completions: Sequence[str], solution: Sequence[str]) -> list[float]:
    """The reward of each completion of a row whose column ``solution`` is given."""
    cases = [(Key.from_json(key), completion) for key, completion in zip(solution, completions, strict=True)]
    return [float(verdict["score"]) for verdict in score_all(cases)]


FILES = {
    "easyr1": '''"""The reward of this export: worker.reward.reward_function=FOLDER/reward.py:compute_score"""
from ssrl_core.export.rewards import easyr1 as compute_score  # noqa: F401
''',
    "swift": '''"""The reward of this export: --external_plugins FOLDER/reward.py --reward_funcs ssrl"""
from swift.rewards import ORM, orms

from ssrl_core.export.rewards import swift


class Ssrl(ORM):
    def __call__(self, completions, solution, **kwargs):
        return swift(completions, solution)


orms["ssrl"] = Ssrl
''',
}
"""Layout -> ``reward.py`` in the folder of an export."""
