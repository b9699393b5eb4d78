"""verl's custom reward function (``reward.custom_reward_function``): the plugins' verifiers."""

from __future__ import annotations

from typing import Any

from ..reward import Key, score


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """The reward of one completion, always with the same keys, as verl requires; see ``ssrl_core.score``.

    Runs in verl's thread pool.

    Raises:
        ValueError: the row was made neither by ``ssrl_core.verl.dataset`` nor by ``ssrl export``.
    """
    try:
        key = Key.from_json(ground_truth)
    except (ValueError, TypeError) as err:
        raise ValueError(
            f"the ground_truth of a row of {data_source!r} is not a key of ssrl ({err}): {ground_truth!r:.200}. Rows "
            "come from ssrl_core.verl.dataset or from ssrl export"
        ) from err
    return score(key, solution_str)
