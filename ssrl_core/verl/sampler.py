"""verl's replay buffer with a shorter polling interval, batches in a fixed order, and metrics of the rollouts.

verl reports rewards per task only in validations. A replay buffer that ``trainer.v1.sampler.custom_sampler`` names may
return metrics of its own, which go to every logger. The buffer also passes the outcomes of a step on to the dataset,
for ``ssrl_core.verl.adaptive``.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice
from statistics import mean
from typing import Any, NamedTuple

import ray
import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils

from .rollout import forms_waves, server_name


class Outcome(NamedTuple):
    """One rollout.

    Attributes:
        prompt: id of the prompt.
        kind: ``task@level``.
        facts: what the reward function returned.
        length: length of the completion in tokens.
        spans: (begin, end) of ``data``, ``generation`` and ``reward``, in seconds since the epoch; empty if the agent
            loop is not ours.
    """

    prompt: str
    kind: str
    facts: Mapping[str, Any]
    length: int
    spans: Mapping[str, tuple[float, float]]


class PromptReplayBuffer(ReplayBuffer):
    """verl's replay buffer for synchronous training (``trainer.v1.sampler.custom_sampler``), with three changes.

    It looks for finished rollouts every 0.2 seconds; verl's interval of 2 seconds is most of a small model's step. Its
    batches are in a fixed order; verl's are in the order in which rollouts finished, which changes sums in the last
    digits. It adds metrics of the rollouts.
    """

    def __init__(self, *args: Any, refill_fn: Callable[[int], int], **kwargs: Any) -> None:
        super().__init__(*args, **{"poll_interval": 0.2, "refill_fn": refill_fn, **kwargs})
        # verl passes a method of the trainer, which is the only way from here to its dataset and dataloader.
        self._trainer: Any = refill_fn.__self__
        self._fetched = 0.0
        fetch, numbers = self._trainer._next_train_batch, count()

        def fetch_timed_and_numbered(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                batch = fetch(*args, **kwargs)
            finally:
                self._fetched += time.perf_counter() - begin
            # verl's ids are random, and it sorts its dumps of rollouts by them. These sort as the dataloader yields.
            step = self._trainer.global_steps
            ids = [f"{step:08}-{number:09}" for number in islice(numbers, len(batch))]
            tensordict_utils.assign_non_tensor_stack(batch, "uid", ids)
            return batch

        self._trainer._next_train_batch = fetch_timed_and_numbered

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """verl's batch in a fixed order, and verl's metrics with ours."""
        begin = time.time()
        if forms_waves(self._trainer.config):  # verl calls this when it has submitted the prompts
            ray.get(ray.get_actor(server_name(0)).announce.remote(batch_size))
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        batch.reorder(fixed_order(batch))
        if partition_id == "train":
            found = outcomes(batch)
            fetched, self._fetched = self._fetched, 0.0
            metrics |= rates(found) | waits(found, begin=begin, fetched=fetched)
            if hasattr(self._trainer.train_dataset, "learn"):
                self._trainer.train_dataset.learn(mixed(found))
        return batch, metrics


def fixed_order(batch: Any) -> list[int]:
    """Positions of a batch's rollouts in an order that does not depend on when they finished.

    Training prompts are sorted as the dataloader yielded them, which their ids say; validation prompts, whose ids are
    random, by their index in the dataset. Rollouts of a prompt are sorted by their ordinal.

    Args:
        batch: verl's ``KVBatchMeta``, with keys ``{prompt id}_{ordinal of the rollout}_{ordinal of the output}``.
    """
    prompts: list[tuple[Any, ...]] = [(key.rsplit("_", 2)[0],) for key in batch.keys]
    if batch.partition_id == "val" and batch.keys:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["index", "data_source"])
        columns = (data.pop(field).tolist() for field in ("index", "data_source"))
        prompts = list(zip(*columns, prompts, strict=True))
    ordinals = [tuple(map(int, key.rsplit("_", 2)[1:])) for key in batch.keys]
    return sorted(range(len(batch.keys)), key=lambda at: (*prompts[at], ordinals[at]))


def outcomes(batch: Any) -> list[Outcome]:
    """The rollouts of a batch, read from verl's queue."""
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
    """Metrics of a step's rollouts, overall and by ``task@level``.

    Returns:
        ``rollout/{all or task@level}/acc``, ``/format`` and ``/error``: means over the rollouts, in [0, 1];
        ``/length``: mean number of tokens. ``rollout/all_right`` and ``rollout/all_wrong``: share of prompts whose
        rollouts are all right, or all wrong, and give GRPO no advantage.
    """
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
    """``task@level`` -> number of its prompts with right and wrong rollouts, and number of all its prompts."""
    kinds = {outcome.prompt: outcome.kind for outcome in found}
    counts: dict[str, tuple[int, int]] = {}
    for prompt, accuracies in by_prompt(found).items():
        some, all_ = counts.get(kinds[prompt], (0, 0))
        counts[kinds[prompt]] = some + (min(accuracies) < max(accuracies)), all_ + 1
    return counts


def by_prompt(found: Sequence[Outcome]) -> dict[str, list[float]]:
    """Prompt -> accuracies of its rollouts, in [0, 1]."""
    groups = defaultdict(list)
    for outcome in found:
        groups[outcome.prompt].append(float(outcome.facts.get("acc", outcome.facts.get("score", 0.0))))
    return groups


def waits(found: Sequence[Outcome], *, begin: float, fetched: float) -> dict[str, float]:
    """Seconds of a step in which nothing was generated because data or rewards were missing.

    Args:
        found: the rollouts of the step.
        begin: when the last prompt was submitted, in seconds since the epoch.
        fetched: seconds that the trainer waited for its dataloader.

    Returns:
        ``timing_s/data_fetch``: ``fetched``. ``timing_s/data_wait``: ``fetched``, and the time until the first rollout
        began to generate. ``timing_s/reward_wait``: from the end of the last generation to the last reward. The last
        two include verl's own work in that time, such as processing the images again for each reward, so they are
        upper bounds. ``timing_s/render`` and ``timing_s/reward_each``: means over the rollouts.
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
