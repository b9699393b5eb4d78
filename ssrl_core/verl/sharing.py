"""A prompt once for all its rollouts, where the policy learns on a CPU.

The n rollouts of a prompt repeat its tokens and its images, and verl's engine computes them n times. Here a sequence is
a prompt with all its completions one after the other; each completion has the positions that it would have by itself,
and sees the prompt and itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import verl.utils.torch_functional as verl_functional
from tensordict import NonTensorData, TensorDict
from verl.utils import tensordict_utils
from verl.utils.model import extract_multi_modal_inputs

_ELSEWHERE = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
"""Settings of verl's with outputs that are not made here."""


@dataclass(frozen=True)
class Shared:
    """A micro-batch in which each prompt stands once.

    Attributes:
        inputs: of the model: sequences x tokens.
        before: (n,) index, in all tokens of all sequences, of the token before each token of a completion.
        tokens: (n,) the tokens of the completions.
        places: (n,) their indices in all tokens of the micro-batch as verl has it.
        rows: (n,) the rollout of each.
    """

    inputs: Mapping[str, torch.Tensor]
    before: torch.Tensor
    tokens: torch.Tensor
    places: torch.Tensor
    rows: torch.Tensor


def share(micro_batch: TensorDict) -> Shared | None:
    """The micro-batch with each prompt once; None where none stands there twice, or more outputs are wanted."""
    wants_all = any(tensordict_utils.get_non_tensor_data(micro_batch, key, default=False) for key in _ELSEWHERE)
    if wants_all or "prompts" not in micro_batch:  # no prompts: a cold start
        return None
    prompts, positions = micro_batch["prompts"].unbind(), micro_batch["position_ids"].unbind()
    sequences = micro_batch["input_ids"].unbind()
    pictures = micro_batch.get("multi_modal_inputs", [{}] * len(prompts))
    pictures = [part.data if isinstance(part, NonTensorData) else part for part in pictures]
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for row, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        values = (prompt, *(value for _, value in sorted((picture or {}).items()) if value is not None))
        groups.setdefault(tuple(value.numpy().tobytes() for value in values), []).append(row)
    if len(groups) == len(prompts):
        return None

    starts = micro_batch["input_ids"].offsets().tolist()
    ids, turns, owners, tokens = [], [], [], []
    before, places, rows = list[int](), list[int](), list[int]()
    width = max(len(prompts[g[0]]) + sum(len(sequences[r]) - len(prompts[r]) for r in g) for g in groups.values())
    for number, group in enumerate(groups.values()):
        length = len(prompts[group[0]])
        parts, turned, owned = [prompts[group[0]]], [positions[group[0]][..., :length]], [torch.zeros(length).long()]
        for nth, row in enumerate(group, 1):
            begin = number * width + sum(map(len, parts))
            completion = sequences[row][length:]
            parts.append(completion)
            turned.append(positions[row][..., length:])
            owned.append(torch.full((len(completion),), nth))
            before += [number * width + length - 1, *range(begin, begin + len(completion) - 1)][: len(completion)]
            tokens.append(completion)
            # verl's log-probability of a token stands where the token before it does.
            places += range(starts[row] + length - 1, starts[row] + length - 1 + len(completion))
            rows += [row] * len(completion)
        ids.append(torch.cat(parts))
        turns.append(torch.cat(turned, dim=-1))
        owners.append(torch.cat(owned))
    pad = tensordict_utils.get_non_tensor_data(micro_batch, "pad_token_id", default=0)
    inputs: dict[str, Any] = {
        "input_ids": _padded(ids, width, pad),
        "position_ids": _padded(turns, width, 0).movedim(0, -2),
        "attention_mask": _mask(_padded(owners, width, -1)),
    }
    inputs.update(extract_multi_modal_inputs([pictures[group[0]] for group in groups.values()]))
    return Shared(inputs, torch.tensor(before), torch.cat(tokens), torch.tensor(places), torch.tensor(rows))


def outputs(shared: Shared, logits: torch.Tensor, micro_batch: TensorDict) -> dict[str, torch.Tensor]:
    """verl's outputs of a micro-batch: log-probabilities and entropies of completions; those of prompts, which nothing
    reads, are 0.

    Args:
        shared: of the micro-batch.
        logits: sequences x tokens x vocabulary.
        micro_batch: as verl has it.
    """
    ids = micro_batch["input_ids"]
    temperature = torch.as_tensor(micro_batch["temperature"], dtype=torch.float32).expand(len(ids.offsets()) - 1)
    seen = logits.flatten(0, 1).index_select(0, shared.before) / temperature[shared.rows, None]

    def laid_out(values: torch.Tensor) -> torch.Tensor:
        everywhere = values.new_zeros(len(ids.values())).index_copy(0, shared.places, values)
        return torch.nested.nested_tensor_from_jagged(everywhere, ids.offsets())

    result = {"log_probs": laid_out(verl_functional.logprobs_from_logits(logits=seen, labels=shared.tokens))}
    if tensordict_utils.get_non_tensor_data(micro_batch, "calculate_entropy", default=False):
        result["entropy"] = laid_out(verl_functional.entropy_from_logits(seen))
    return result


def _padded(rows: list[torch.Tensor], width: int, value: int) -> torch.Tensor:
    return torch.stack([torch.nn.functional.pad(row, (0, width - row.shape[-1]), value=value) for row in rows])


def _mask(owners: torch.Tensor) -> torch.Tensor:
    """sequences x 1 x tokens x tokens, 0 where a token sees another, else the least float: the prompt (0) and its own
    completion (1, 2, ...), up to itself. Padding (-1) sees the prompt, so that every row of attention has something."""
    sees = (owners[:, None, :] == 0) | (owners[:, None, :] == owners[:, :, None])
    sees &= torch.ones(owners.shape[1], owners.shape[1]).tril().bool()
    return torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[:, None]
