"""Query a model with the samples of a mix, score its completions, and write the answers into the folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PluginFailed, SourceError
from ..form import looks_opened
from ..mix import Mix
from ..reward import Key, fault_of, score
from ..sample import Example
from .folder import Answer, EvaluationError, answers_of, continued, plan_of
from .form import Forms, check_template
from .models import Failed, Model, Numbered, Sampling, Written


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answers to the samples of a mix.

    Attributes:
        answers: sorted by index.
        failed: for the samples that got no answer in this run: reason -> number of samples.
        notes: sentences about the form of the completions.
    """

    answers: list[Answer]
    failed: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


def evaluate(
    mix: Mix,
    model: Model,
    folder: Path,
    *,
    samples: int | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """The answers of a model to the first samples of a mix. Answers that are in the folder are not asked for again.

    Sample 17 of a task is the same in every evaluation of a mix, whatever its length, so two evaluations can be
    compared sample by sample. A sample without an answer does not count as wrong. It is counted separately, and asked
    for again at the next start.

    Args:
        mix: usually the held-out split.
        model: see ``models``.
        folder: folder of the evaluation: new, or of the same evaluation.
        samples: number of samples, from the first; they have the proportions of the mix. None asks for all.
        sampling: how completions are sampled.
        on_progress: called with the number of finished samples, and of all that were missing at the start.

    Raises:
        EvaluationError: the folder contains something else or is in use; the mix has fewer samples; the model cannot
            be queried, or its chat template does not go with the mode of thinking.
        PluginError: a task is broken.
    """
    samples = mix.checked(samples, error=EvaluationError)
    written = getattr(model, "written", None)
    if written:
        check_template(mix.config.thinking, written)
    failed: Counter[str] = Counter()
    forms = Forms(mix.config.thinking, known=written is not None)
    with continued(folder, plan_of(mix, model.facts, asdict(sampling)), Answer.read) as (keep, answers):
        known = {answer.index for answer in answers}
        missing = [index for index in range(samples) if index not in known]

        def judge(index: int, example: Any, written: Written) -> None:
            keep(answer := judged(mix, index, example, written))
            key = Key(
                answer.task,
                answer.truth,
                params=dict(answer.params),
                thinking=mix.config.thinking,
                opened=answer.opened,
            )
            fault = fault_of(key, answer.completion)
            forms.look_at(f"sample {index}", answer.completion, fault, opened=answer.opened, cut=answer.cut)

        if missing:
            outcomes = model.answer(_examples(mix, missing, failed), sampling)
            take(outcomes, judge, failed, total=len(missing), on_progress=on_progress)
        return Evaluation(answers_of(folder), failed, forms.notes())


def take(
    outcomes: Iterable[tuple[Numbered, Written | Failed]],
    judge: Callable[[int, Any, Written], None],
    failed: Counter[str],
    *,
    total: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Call ``judge`` with index, example and completion of each outcome, and count the failures by reason."""
    for done, ((index, example), outcome) in enumerate(outcomes, start=1):
        if isinstance(outcome, Failed):
            failed[outcome.reason] += 1
        else:
            judge(index, example, outcome)
        on_progress(done, total)


def has_opened(written: Written) -> bool:
    """Whether the prompt ended with ``<think>``: known of the chat template, or inferred from the completion."""
    return looks_opened(written.text) if written.opened is None else written.opened


def _examples(mix: Mix, indices: Iterable[int], failed: Counter[str]) -> Iterator[Numbered]:
    """The examples of the indices. Samples that cannot be made are counted in ``failed``."""
    for index in indices:
        try:
            yield index, mix[index]
        except (PluginFailed, SourceError) as err:
            failed[f"no sample: {err}"] += 1


def judged(mix: Mix, index: int, example: Example, written: Written) -> Answer:
    """The answer that a completion gives to an example of a mix, scored as in training."""
    opened = has_opened(written)
    config = mix.config
    key = Key.of(example, format_weight=config.format_weight, thinking=config.thinking, opened=opened)
    verdict: dict[str, Any] = score(key, written.text)
    return Answer(
        index=index,
        **asdict(key),
        chance=mix.tasks[key.task].info.levels[key.level].chance,
        recipe=example.recipe.to_json(),
        prompt=example.prompt,
        completion=written.text,
        cut=written.cut,
        **verdict,
    )
