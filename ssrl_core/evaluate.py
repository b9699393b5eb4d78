"""Accuracy of a model on a mix, per task, with the plugins' own verifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from .answers import judge
from .completions import complete, load_model
from .mix import Example, Mix
from .types import Verdict


@dataclass(frozen=True, slots=True)
class Answered:
    """An example, what a model wrote, and what that is worth. ``chance`` is that of the example's level."""

    example: Example
    completion: str
    verdict: Verdict
    chance: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over the answers of one task: accuracy, format rate, score and chance, each in [0, 1]."""

    count: int
    acc: float
    format: float
    score: float
    chance: float


def evaluate(
    model_path: str,
    mix: Mix,
    *,
    count: int,
    max_new_tokens: int = 2048,
    temperature: float = 0.0,
    batch: int = 32,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[Answered]:
    """The first ``count`` examples of a mix, answered by a model on this machine.

    Args:
        model_path: a folder or a hub name that transformers loads.
        mix: usually the held-out split.
        count: number of examples, at most ``len(mix)``.
        max_new_tokens: longest completion.
        temperature: 0 is greedy; otherwise torch's global generator draws.
        batch: examples generated together.
        on_batch: called with the number of examples answered so far.
    """
    from transformers import AutoProcessor

    model, processor = load_model(model_path), AutoProcessor.from_pretrained(model_path)
    answered: list[Answered] = []
    count = min(count, len(mix))
    for start in range(0, count, batch):
        examples = [mix[index] for index in range(start, min(start + batch, count))]
        prompts = [token_ids(processor, example) for example in examples]
        pictures = [list(example.sample.images) for example in examples]
        completions = complete(
            model, processor, prompts, pictures, max_new_tokens=max_new_tokens, temperature=temperature
        )
        for example, written in zip(examples, completions, strict=True):
            text = processor.tokenizer.decode(written.token_ids, skip_special_tokens=True)
            task = mix.tasks[example.recipe.task]
            verify = partial(task.verify_answer, truth=example.sample.truth, params=example.sample.params)
            verdict = judge(text, verify, format_weight=mix.config.format_weight)
            answered.append(Answered(example, text, verdict, task.info.levels[example.recipe.level].chance))
        on_batch(len(answered))
    return answered


def summarize(answered: Iterable[Answered]) -> dict[str, Summary]:
    """The means by task, in order of first appearance."""
    by_task: dict[str, list[Answered]] = {}
    for answer in answered:
        by_task.setdefault(answer.example.recipe.task, []).append(answer)
    return {task: _summary(answers) for task, answers in by_task.items()}


def _summary(answers: list[Answered]) -> Summary:
    def mean(values: Iterator[float]) -> float:
        return sum(values) / len(answers)

    return Summary(
        count=len(answers),
        acc=mean(a.verdict.acc for a in answers),
        format=mean(a.verdict.format for a in answers),
        score=mean(a.verdict.score for a in answers),
        chance=mean(a.chance for a in answers),
    )


def token_ids(processor: Any, example: Example) -> list[int]:
    """An example's prompt in the model's chat template, with one image token for each visual token."""
    content: list[dict[str, str]] = []
    for part in example.prompt.split("<image>"):
        content += [{"type": "text", "text": part}] if part else []
        content.append({"type": "image"})
    text = processor.apply_chat_template(
        [{"role": "user", "content": content[:-1]}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = processor(text=[text], images=list(example.sample.images))["input_ids"][0]
    return list(ids)
