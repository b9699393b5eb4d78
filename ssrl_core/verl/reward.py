"""verl's custom reward function (``reward.custom_reward_function``), which calls the verifiers of the plugins."""

from __future__ import annotations

from typing import Any

from ..reward import Key, score


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """The reward of one completion; see ``ssrl_core.reward.score``. It always has the same keys, as verl requires.

    verl calls it in a thread pool.

    Raises:
        ValueError: the row comes neither from ``ssrl_core.verl.dataset`` nor from ``ssrl export``.
    """
    try:
        key = Key.from_json(ground_truth)
    except (ValueError, TypeError) as err:
        raise ValueError(
            f"the ground_truth of a row of {data_source!r} is not a key of ssrl ({err}): {ground_truth!r:.200}. Use "
            "rows from ssrl_core.verl.dataset or from ssrl export"
        ) from err
    return score(key, solution_str)
