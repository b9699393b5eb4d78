"""verl's custom reward function (``reward.custom_reward_function``): the plugins' verifiers."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ..answers import judge
from ..errors import PluginFailed
from ..plugins import load_task

logger = logging.getLogger(__name__)
_reported: set[tuple[str, type]] = set()

VERIFIER_LIMIT = 10.0
"""Seconds that a verifier may take for one answer."""


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """The reward of one completion, always with the same keys, as verl requires.

    Runs in verl's thread pool. A verifier that fails costs that completion its reward, never the run; the first of
    its kind is logged with its traceback, and all show in the metric ``error``.

    Returns:
        ``score`` in [0, 1], ``acc``, ``format`` and ``error`` (0.0 or 1.0), and ``pred``, the extracted answer.
    """
    if extra_info is None or "task" not in extra_info:
        raise ValueError(f"row of {data_source!r} has no extra_info.task; it was not made by ssrl_core.verl.dataset")
    task = load_task(extra_info["task"], wrappers=tuple(extra_info.get("wrappers", ())))
    verify = partial(task.verify_answer, truth=ground_truth, params=extra_info.get("params", {}), limit=VERIFIER_LIMIT)
    try:
        verdict = judge(solution_str, verify, format_weight=extra_info["format_weight"])
    except PluginFailed as err:
        kind = data_source, type(err.__cause__)
        if kind not in _reported:  # one that always fails would fill the log
            _reported.add(kind)
            logger.exception("no reward for a completion of %s; more failures of this kind are only counted", kind[0])
        return {"score": 0.0, "acc": 0.0, "format": 0.0, "error": 1.0, "pred": ""}
    return {
        "score": verdict.score,
        "acc": verdict.acc,
        "format": verdict.format,
        "error": 0.0,
        "pred": verdict.pred,
    }
