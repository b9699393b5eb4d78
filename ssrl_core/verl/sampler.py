"""verl's replay buffer, polled more often, and what it adds to verl's metrics of a training step.

verl splits rewards by task only where it validates; a buffer that ``trainer.v1.sampler.custom_sampler`` names may
return metrics of its own, which go to every logger. It is also the place where outcomes and dataset meet, for
``ssrl_core.verl.adaptive``.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class Outcome(NamedTuple):
    """One rollout.

    Attributes:
        prompt: id of its prompt.
        kind: ``task@level``.
        facts: what the reward function returned.
        length: tokens of the completion.
        spans: times of ``data``, ``generation`` and ``reward`` as (begin, end), in seconds of one clock; empty where
            the agent loop is not ours.
    """

    prompt: str
    kind: str
    facts: Mapping[str, Any]
    length: int
    spans: Mapping[str, tuple[float, float]]


class PromptReplayBuffer(ReplayBuffer):
    """verl looks for finished rollouts every 2 seconds, which is most of a small model's step. This looks five times
    a second (``trainer.v1.sampler.custom_sampler``), and measures what it finds."""

    def __init__(self, *args: Any, refill_fn: Callable[[int], int], **kwargs: Any) -> None:
        super().__init__(*args, **{"poll_interval": 0.2, "refill_fn": refill_fn, **kwargs})
        # verl hands over a method of the trainer, which is the only way from here to its dataset and dataloader.
        self._trainer: Any = refill_fn.__self__
        self._fetched = 0.0
        fetch = self._trainer._next_train_batch

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return fetch(*args, **kwargs)
            finally:
                self._fetched += time.perf_counter() - begin

        self._trainer._next_train_batch = timed

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """verl's batch, and its metrics with ours."""
        begin = time.time()
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "train":
            found = outcomes(batch)
            fetched, self._fetched = self._fetched, 0.0
            metrics |= rates(found) | waits(found, begin=begin, fetched=fetched)
            if hasattr(self._trainer.train_dataset, "learn"):
                self._trainer.train_dataset.learn(mixed(found))
        return batch, metrics


def outcomes(batch: Any) -> list[Outcome]:
    """The rollouts of a batch of verl's, as they stand in its queue."""
    fields = ["data_source", "extra_fields", "metrics"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    found = []
    columns = (data.pop(field).tolist() for field in fields)
    for key, tag, kind, extra, timing in zip(batch.keys, batch.tags, *columns, strict=True):
        spans = dict(extra.get("spans", {}))
        if spans:
            end = spans["generation"][1]
            spans["reward"] = end, end + timing["compute_score"]
        prompt = key.rsplit("_", 2)[0]
        found.append(Outcome(prompt, kind, extra["reward_extra_info"], tag["response_len"], spans))
    return found


def rates(found: Sequence[Outcome]) -> dict[str, float]:
    """Accuracy, share of completions of the right form, and their length, in all and by ``task@level``; the shares of
    prompts whose rollouts are all right, or all wrong: those teach GRPO nothing."""
    metrics = {}
    kinds = defaultdict(list)
    for outcome in found:
        kinds[outcome.kind].append(outcome)
    for name, part in {"all": found, **kinds}.items():
        for key in ("acc", "format", "error"):
            values = [o.facts[key] for o in part if key in o.facts]
            if values:
                metrics[f"rollout/{name}/{key}"] = mean(values)
        metrics[f"rollout/{name}/length"] = mean(o.length for o in part)
    groups = by_prompt(found)
    metrics["rollout/all_right"] = mean(min(accuracies) >= 1 for accuracies in groups.values())
    metrics["rollout/all_wrong"] = mean(max(accuracies) <= 0 for accuracies in groups.values())
    return metrics


def mixed(found: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """``task@level`` -> how many of its prompts were solved by some rollouts and not by others, and how many it had."""
    kinds = {outcome.prompt: outcome.kind for outcome in found}
    counts: dict[str, tuple[int, int]] = {}
    for prompt, accuracies in by_prompt(found).items():
        some, all_ = counts.get(kinds[prompt], (0, 0))
        counts[kinds[prompt]] = some + (min(accuracies) < max(accuracies)), all_ + 1
    return counts


def by_prompt(found: Sequence[Outcome]) -> dict[str, list[float]]:
    """Prompt -> the accuracies of its rollouts."""
    groups = defaultdict(list)
    for outcome in found:
        groups[outcome.prompt].append(float(outcome.facts.get("acc", outcome.facts.get("score", 0.0))))
    return groups


def waits(found: Sequence[Outcome], *, begin: float, fetched: float) -> dict[str, float]:
    """Seconds of a step during which nothing was generated for want of data or rewards.

    Args:
        found: the rollouts of the step.
        begin: when the last of their prompts had been submitted.
        fetched: seconds that the trainer waited for its dataloader.

    Returns:
        ``timing_s/data_fetch``; ``timing_s/data_wait``: that, and what passed before the first rollout began to
        generate; ``timing_s/reward_wait``: from the end of the last generation to the last reward; both include verl's
        own work of those moments (its processor runs over the images again for each reward), so they are upper
        bounds. ``timing_s/render`` and ``timing_s/reward_each``: means over the rollouts.
    """
    metrics = {"timing_s/data_fetch": fetched}
    spans = [outcome.spans for outcome in found if outcome.spans]
    if spans:
        first = min(span["generation"][0] for span in spans)
        last = max(span["generation"][1] for span in spans)
        metrics["timing_s/data_wait"] = fetched + max(0.0, first - begin)
        metrics["timing_s/reward_wait"] = max(0.0, max(span["reward"][1] for span in spans) - last)
        metrics["timing_s/render"] = mean(span["data"][1] - span["data"][0] for span in spans)
        metrics["timing_s/reward_each"] = mean(span["reward"][1] - span["reward"][0] for span in spans)
    return metrics
