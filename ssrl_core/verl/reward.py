"""verl's custom reward function (``reward.custom_reward_function``): the plugins' verifiers."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ..answers import judge
from ..errors import PluginFailed
from ..plugins import load_task

logger = logging.getLogger(__name__)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """The reward of one completion, always with the same keys, as verl requires.

    Runs in verl's thread pool. A verifier that fails costs that completion its reward, never the run; it is logged
    with its traceback and shows in the metric ``error``.

    Returns:
        ``score`` in [0, 1], ``acc``, ``format`` and ``error`` (0.0 or 1.0), and ``pred``, the extracted answer.
    """
    if extra_info is None or "task" not in extra_info:
        raise ValueError(f"row of {data_source!r} has no extra_info.task; it was not made by ssrl_core.verl.dataset")
    verify = partial(
        load_task(extra_info["task"]).verify_answer, truth=ground_truth, params=extra_info.get("params", {})
    )
    try:
        verdict = judge(solution_str, verify, format_weight=extra_info["format_weight"])
    except PluginFailed:
        logger.exception("no reward for a completion of %s", data_source)
        return {"score": 0.0, "acc": 0.0, "format": 0.0, "error": 1.0, "pred": ""}
    return {
        "score": verdict.score,
        "acc": verdict.acc,
        "format": verdict.format,
        "error": 0.0,
        "pred": verdict.pred,
    }
