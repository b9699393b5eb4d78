"""From a completion to its reward: the only code that scores completions.

Training (``compute_score``), ``ssrl score``, ``ssrl eval`` and the conformance kit all call ``score_all``. It extracts
the answer (``form``), lets the task's verifier score it, and adds the share for the format.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from .errors import PluginFailed
from .form import (
    CLOSING,
    COMPLETION,
    DIRECT,
    FORMAT_WEIGHT,
    OPENING,
    PUBLISHED,
    Thinking,
    extract_answer,
    form_fault,
    looks_opened,
    opens_thinking,
    published_answer,
    verdict,
)
from .plugins import load_task
from .sample import Example

logger = logging.getLogger(__name__)
_reported: set[tuple[str, type]] = set()

VERIFIER_LIMIT = 10.0
"""Seconds that a verifier may take for one answer."""


@dataclass(frozen=True, slots=True)
class Key:
    """Everything that the reward depends on besides the completion.

    As JSON it is the ``ground_truth`` of verl's rows. This is the only field of a row that verl writes into all of its
    dumps, so ``ssrl score`` can score dumps again.
    """

    task: str
    truth: str
    level: str = "?"
    params: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    format_weight: Annotated[float, Field(ge=0, lt=1)] = FORMAT_WEIGHT
    thinking: Thinking = "required"
    opened: bool | None = None
    plugin: str = ""

    @classmethod
    def of(
        cls, example: Example, *, format_weight: float, thinking: Thinking = "required", opened: bool | None = None
    ) -> Key:
        """The key of an example from a mix with this ``format_weight`` and mode of ``thinking``.

        Args:
            opened: whether the model's chat template ends the prompt with ``<think>``. If None, it is not known, and
                taken for so where a completion has ``</think>`` alone.
        """
        recipe, sample = example.recipe, example.sample
        params = dict(sample.params)
        return cls(
            *(recipe.task, sample.truth, recipe.level, params, recipe.wrappers),
            *(format_weight, thinking, opened, recipe.plugin),
        )

    def to_json(self) -> str:
        """The key as one line of JSON with sorted keys; without ``plugin`` if it is empty."""
        facts = asdict(self)
        if not self.plugin:
            del facts["plugin"]
        return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Key:
        """The key that ``to_json`` wrote. Raises ValueError for any other text."""
        return _adapter().validate_json(text)


def columns(
    example: Example, *, format_weight: float, thinking: Thinking = "required", opened: bool | None = None
) -> dict[str, Any]:
    """The columns of verl's row of an example that ``compute_score`` reads: ``data_source`` and ``reward_model``.

    See ``Key.of`` for the arguments.
    """
    key = Key.of(example, format_weight=format_weight, thinking=thinking, opened=opened)
    return {
        "data_source": f"{key.task}@{key.level}",
        "reward_model": {"style": "rule", "ground_truth": key.to_json()},
    }


@cache
def _adapter() -> TypeAdapter[Key]:
    return TypeAdapter(Key)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """The reward of one completion, as verl calls it (``reward.custom_reward_function``); see ``score_all``.

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


def score(key: Key, completion: str) -> dict[str, float | str]:
    """The reward of one completion; see ``score_all``."""
    return score_all([(key, completion)])[0]


def score_all(cases: Sequence[tuple[Key, str]]) -> list[dict[str, float | str]]:
    """The reward of each completion. A batch costs half as much per completion as single calls.

    If a verifier fails, its completion gets no reward and the run goes on. The first failure of each kind is logged
    with its traceback. All failures are counted in ``error``.

    Returns:
        A dictionary per completion, always with the same keys: ``score`` in [0, 1]; ``acc``, ``format`` and ``error``
        (0.0 or 1.0); and ``pred``, the extracted answer.
    """
    readings = [_read(key, completion) for key, completion in cases]
    by_task: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for number, ((key, _), (answer, _)) in enumerate(zip(cases, readings, strict=True)):
        if answer:
            by_task.setdefault((key.task, key.plugin, key.wrappers), []).append(number)
    values: dict[int, float | PluginFailed] = {}
    for (name, plugin, wrappers), numbers in by_task.items():
        answered = [(readings[number][0] or "", cases[number][0].truth, cases[number][0].params) for number in numbers]
        outcomes = load_task(name, plugin=plugin, wrappers=wrappers).verify_answers(answered, limit=VERIFIER_LIMIT)
        values |= zip(numbers, outcomes, strict=True)
    return [
        _facts(key, *reading, values.get(number, 0.0))
        for number, ((key, _), reading) in enumerate(zip(cases, readings, strict=True))
    ]


def _read(key: Key, completion: str) -> tuple[str | None, bool]:
    """The answer of a completion, and whether its form earns the share for the format."""
    if key.params.get("form") == PUBLISHED:
        return published_answer(judged(key, completion) if key.opened else completion)
    answer = extract_answer(judged(key, completion), thinking=key.thinking)
    return answer, answer is not None


def judged(key: Key, completion: str) -> str:
    """The text whose form counts: the completion, after the ``<think>`` with which the template ended the prompt."""
    opened = looks_opened(completion) if key.opened is None else key.opened
    return OPENING + completion if opened and not completion.lstrip().startswith(OPENING) else completion


def fault_of(key: Key, completion: str) -> str:
    """Why the form of a completion earns nothing, as a constant phrase; empty if the form is right."""
    if key.params.get("form") == PUBLISHED:
        return (
            "" if _read(key, completion)[1] else "it is not <think>, </think> and a \\boxed{}, as the row's reward asks"
        )
    return form_fault(judged(key, completion), thinking=key.thinking)


def right_completion(truth: str, *, thinking: Thinking, written: str = "", template: str | None = None) -> str:
    """A completion with the right answer, as a cold start teaches it.

    Args:
        truth: the right answer.
        thinking: the mode of the mix.
        written: what the chat template has written of the completion already; see ``models.loading.written``.
        template: text to format with ``truth``. By default it thinks, unless ``thinking`` is ``"none"`` or the chat
            template has ended the thinking.
    """
    direct = thinking == "none" or CLOSING in written
    text = (template or (DIRECT if direct else COMPLETION)).format(truth=truth)
    return text.lstrip().removeprefix(OPENING) if opens_thinking(written) else text


def _facts(key: Key, answer: str | None, form: bool, value: float | PluginFailed) -> dict[str, float | str]:
    if isinstance(value, PluginFailed):
        kind = key.task, type(value.__cause__)
        if kind not in _reported:  # a verifier that always fails would fill the log
            _reported.add(kind)
            logger.error(
                "no reward for a completion of %s; later failures of this kind are only counted",
                key.task,
                exc_info=value,
            )
        return {"score": 0.0, "acc": 0.0, "format": 0.0, "error": 1.0, "pred": ""}
    found = verdict(answer, value, format_weight=key.format_weight, form=form)
    return {"score": found.score, "acc": found.acc, "format": found.format, "error": 0.0, "pred": found.pred}
