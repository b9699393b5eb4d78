"""Completions from a vision-language model with transformers, in batches: for rollouts on a CPU and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, up to and with the end token, and their log-probabilities at the sampling temperature."""

    token_ids: list[int]
    log_probs: list[float]


def load_model(path: str) -> Any:
    """A vision-language model in float32 for inference, from a local folder or a hub name."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def complete(
    model: Any,
    processor: Any,
    prompts: Sequence[Sequence[int]],
    images: Sequence[Sequence[Image.Image]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> list[Completion]:
    """One completion a prompt, in order.

    Args:
        model, processor: as transformers loads them.
        prompts: token ids with one image token for each visual token, as the processor expands them.
        images: the images of each prompt, in order; sizes may differ.
        max_new_tokens: longest completion.
        temperature: 0 is greedy.
        top_p, top_k: as in transformers; 0 switches top_k off.
    """
    import torch

    pad = processor.tokenizer.pad_token_id
    ends = set(_end_tokens(model))
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    inputs: dict[str, torch.Tensor] = {}
    pictures = [picture for row in images for picture in row]
    if pictures:
        inputs = dict(processor.image_processor(images=pictures, return_tensors="pt"))
        inputs["mm_token_type_ids"] = (ids == processor.image_token_id).long()
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_logits=True,
            **inputs,
            **sampling,
        )
        new = out.sequences[:, longest:]
        # Of the unfiltered policy: that is what a trainer recomputes.
        log_probs = torch.stack(
            [
                (step / (temperature or 1.0)).log_softmax(-1).gather(-1, new[:, at : at + 1])[:, 0]
                for at, step in enumerate(out.logits)
            ],
            dim=1,
        )
    completions = []
    for row, values in zip(new.tolist(), log_probs.tolist(), strict=True):
        length = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
        completions.append(Completion(row[:length], values[:length]))
    return completions


def _end_tokens(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return end if isinstance(end, list) else [end]
