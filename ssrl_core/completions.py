"""Completions from a vision-language model with transformers, in batches: for rollouts on a CPU and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .bound import Example


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, up to and with the end token, and their log-probabilities at the sampling temperature.

    ``log_probs`` is empty where nobody asked for them; without the end token it was ``cut`` at the limit.
    """

    token_ids: list[int]
    log_probs: list[float]
    cut: bool


def load_model(path: str, *, device: str = "cpu") -> Any:
    """A vision-language model for inference, from a local folder or a hub name.

    On a CPU it is in float32, elsewhere in the precision in which it was saved.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    dtype = torch.float32 if device == "cpu" else "auto"
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    return model.to(device).eval()


def parts(prompt: str) -> list[str | None]:
    """A prompt cut at its images: texts, none of them empty, and None for each image, in order."""
    cut: list[str | None] = []
    for text in prompt.split("<image>"):
        cut += [text, None] if text else [None]
    return cut[:-1]


def token_ids(processor: Any, example: Example, *, completion: str | None = None) -> list[int]:
    """An example's prompt in the model's chat template, with one image token for each visual token.

    With a ``completion``, the whole conversation.
    """
    content: Any = [
        {"type": "image"} if text is None else {"type": "text", "text": text} for text in parts(example.prompt)
    ]
    messages = [{"role": "user", "content": content}]
    if completion is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": completion}]})
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=completion is None)
    ids: list[int] = processor(text=[text], images=list(example.sample.images))["input_ids"][0]
    return list(ids)


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
    log_probs: bool = True,
) -> list[Completion]:
    """One completion a prompt, in order. A prompt that stands there many times, with the same images, is read once.

    Args:
        model, processor: as transformers loads them.
        prompts: token ids with one image token for each visual token, as the processor expands them.
        images: the images of each prompt, in order; sizes may differ.
        max_new_tokens: longest completion.
        temperature: 0 is greedy.
        top_p, top_k: as in transformers; 0 switches top_k off.
        log_probs: whether to compute them. They need the logits of every step in memory: vocabulary x tokens x prompts.
    """
    import torch

    pad = processor.tokenizer.pad_token_id
    ends = set(_end_tokens(model))
    longest = max(map(len, prompts))
    firsts, rows = _places(prompts, images)
    different = [list(prompts[k]) for k in firsts]
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in different], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in different], device=model.device)
    inputs: dict[str, torch.Tensor] = {}
    pictures = [picture for k in firsts for picture in images[k]]
    if pictures:
        inputs = dict(processor.image_processor(images=pictures, return_tensors="pt").to(model.device))
        inputs["mm_token_type_ids"] = (ids == processor.image_token_id).long()
    # The policy itself: models bring a penalty for repetition in their generation configuration.
    sampling: dict[str, Any] = {"do_sample": temperature > 0, "repetition_penalty": 1.0}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    with torch.inference_mode():
        if len(firsts) < len(prompts):
            ids, mask, inputs = _read_once(model, ids, mask, inputs, torch.tensor(rows, device=model.device))
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_logits=log_probs,
            **inputs,
            **sampling,
        )
        new = out.sequences[:, longest:]
        values = _log_probs(out.logits, new, temperature or 1.0) if log_probs else [[] for _ in prompts]
    completions = []
    for row, known in zip(new.tolist(), values, strict=True):
        end = next((at for at, token in enumerate(row) if token in ends), None)
        length = len(row) if end is None else end + 1
        completions.append(Completion(row[:length], known[:length], cut=end is None))
    return completions


def _places(prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Image.Image]]) -> tuple[list[int], list[int]]:
    """Where each different prompt stands first, and for every prompt which of these it is."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
        key = (tuple(prompt), *((picture.mode, picture.size, picture.tobytes()) for picture in pictures))
        groups.setdefault(key, []).append(k)
    places = {k: place for place, group in enumerate(groups.values()) for k in group}
    return [group[0] for group in groups.values()], [places[k] for k in range(len(prompts))]


def _read_once(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor], rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """What ``generate`` goes on from: prompts, mask, and a cache of all but their last token, a row a completion."""
    read = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, **inputs
    )
    cache = read.past_key_values
    cache.crop(ids.shape[1] - 1)
    cache.batch_select_indices(rows)
    if getattr(model.model, "rope_deltas", None) is not None:  # how far M-RoPE's positions are behind the tokens
        model.model.rope_deltas = model.model.rope_deltas[rows]
    return ids[rows], mask[rows], {"past_key_values": cache}


def _log_probs(logits: Sequence[torch.Tensor], tokens: torch.Tensor, temperature: float) -> list[list[float]]:
    """Of the unfiltered policy: that is what a trainer recomputes. Logits are one tensor (prompts x words) a step."""
    import torch

    steps = [
        (step / temperature).log_softmax(-1).gather(-1, tokens[:, at : at + 1])[:, 0] for at, step in enumerate(logits)
    ]
    columns: list[list[float]] = torch.stack(steps, dim=1).tolist()
    return columns


def _end_tokens(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return end if isinstance(end, list) else [end]
