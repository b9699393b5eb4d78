"""Computes each prompt once for all its rollouts in a micro-batch, for training on a CPU.

The n rollouts of a prompt repeat its tokens and its images, and verl's engine computes them n times. Here a sequence is
a prompt followed by all its completions. Each completion has the position ids that it would have directly after the
prompt, and attends only to the prompt and to itself.
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
"""Settings of verl that require outputs which are not computed here."""


@dataclass(frozen=True)
class Shared:
    """A micro-batch in which each prompt occurs once. Below, n is the number of completion tokens in it.

    Attributes:
        inputs: inputs of the model; token ids, int64, have the shape sequences x tokens.
        before: int64 (n,), index of the token before each completion token, among all tokens of all sequences.
        tokens: int64 (n,), the completion tokens.
        places: int64 (n,), index among all tokens of verl's micro-batch at which the output for the token belongs.
        rows: int64 (n,), the row of verl's micro-batch that the token is in.
    """

    inputs: Mapping[str, torch.Tensor]
    before: torch.Tensor
    tokens: torch.Tensor
    places: torch.Tensor
    rows: torch.Tensor


def share(micro_batch: TensorDict) -> Shared | None:
    """The micro-batch with each prompt once. None if no prompt repeats, or if a setting requires other outputs."""
    wants_all = any(tensordict_utils.get_non_tensor_data(micro_batch, key, default=False) for key in _ELSEWHERE)
    if wants_all or "prompts" not in micro_batch:  # a cold start has no prompts
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
            # verl stores the log-probability of a token at the position of the token before it.
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
    """Log-probabilities of a micro-batch, and entropies if the micro-batch asks for them, in verl's layout.

    Each is a jagged nested tensor, float32, rows x tokens. Values at prompt tokens are 0; verl does not read them.

    Args:
        shared: result of ``share`` for the micro-batch.
        logits: sequences x tokens x vocabulary.
        micro_batch: verl's micro-batch.
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
    """Additive attention mask, float32, sequences x 1 x tokens x tokens: 0 where a token attends to another one.

    A token attends to the prompt (owner 0) and to its own completion (owner 1, 2, ...), up to itself. Padding (owner
    -1) attends to the prompt, because a row without any 0 gives NaN.
    """
    sees = (owners[:, None, :] == 0) | (owners[:, None, :] == owners[:, :, None])
    sees &= torch.ones(owners.shape[1], owners.shape[1]).tril().bool()
    return torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[:, None]
