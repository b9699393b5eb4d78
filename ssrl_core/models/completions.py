"""Batched completions from a vision-language model with transformers, for rollouts on a CPU and for evaluation.

Every row of a batch samples with a random generator of its own, so a completion depends on its prompt and its seed and
not on the rows beside it. One limit remains: floating-point sums differ in the last bits between batch sizes and
padding widths, so a token that almost ties with another one may differ between batches. The same batch in the same
order on the same machine with the same number of threads gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .loading import load_model as load_model  # where it was first

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled completion.

    Attributes:
        token_ids: the sampled tokens, up to and including the end token.
        log_probs: log-probability of each token at the sampling temperature, before top-p and top-k; empty if they
            were not requested.
        cut: True if the completion reached the length limit without an end token.
    """

    token_ids: list[int]
    log_probs: list[float]
    cut: bool


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
    seeds: Sequence[int] | None = None,
    log_probs: bool = True,
) -> list[Completion]:
    """One completion per prompt, in the order of the prompts. The model reads equal prompts once.

    Args:
        model: a model as ``load_model`` returns it.
        processor: the transformers processor of the model.
        prompts: token ids of each prompt, with one image token per visual token.
        images: the images of each prompt, in order; sizes may differ.
        max_new_tokens: maximum length of a completion in tokens, at least 1.
        temperature: sampling temperature, at least 0; 0 selects the most likely token.
        top_p: nucleus sampling threshold in (0, 1]; 1 disables it.
        top_k: number of most likely tokens to sample from; 0 disables it.
        seeds: one seed per prompt in [0, 2**63). Required if ``temperature`` is above 0. Equal prompts with equal
            seeds get equal completions.
        log_probs: if True, return log-probabilities. This keeps the logits of all steps in memory: prompts x
            tokens x vocabulary, float32.

    Raises:
        ValueError: ``temperature`` is above 0 and there is not exactly one seed per prompt.
    """
    import torch

    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        given = "none" if seeds is None else len(seeds)
        raise ValueError(
            f"temperature = {temperature} needs one seed per prompt: {len(prompts)} prompts, seeds {given}"
        )
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
    sampling: list[Any] = []
    if temperature > 0 and seeds is not None:
        sampling = [_sampler(seeds, temperature=temperature, top_p=top_p, top_k=top_k, device=model.device)]
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
            do_sample=False,  # the sampler adds noise, after which the largest score is a sample
            logits_processor=sampling,
            repetition_penalty=1.0,  # some models bring a penalty in their generation configuration
            **inputs,
        )
        new = out.sequences[:, longest:]
        values = _log_probs(out.logits, new, temperature or 1.0) if log_probs else [[] for _ in prompts]
    completions = []
    for row, known in zip(new.tolist(), values, strict=True):
        end = next((at for at, token in enumerate(row) if token in ends), None)
        length = len(row) if end is None else end + 1
        completions.append(Completion(row[:length], known[:length], cut=end is None))
    return completions


def _sampler(seeds: Sequence[int], *, temperature: float, top_p: float, top_k: int, device: Any) -> Any:
    """A logits processor after which the largest score of each row is a sample from the row's filtered distribution.

    It adds Gumbel noise, -log(q) with q exponentially distributed, to log-probabilities: the Gumbel-max trick (Maddison
    et al. 2014, "A* Sampling", section 2). The noise of a row comes from a generator with the row's seed and one draw
    per token of the vocabulary and step, so it does not depend on the other rows. Sampling by inverting the cumulative
    distribution would need one draw per step, but there a change in one probability moves the limits of all tokens
    after it; with Gumbel noise a rounding error changes the token only at a near tie.
    """
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    filters: list[Any] = [TemperatureLogitsWarper(float(temperature))]
    if top_k > 0:
        filters.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        filters.append(TopPLogitsWarper(top_p))
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def sample(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for keep in filters:
            scores = keep(ids, scores)
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.log_()

    return sample


def _places(prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Image.Image]]) -> tuple[list[int], list[int]]:
    """The position of the first occurrence of each distinct prompt, and for every prompt its number among those."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
        key = (tuple(prompt), *((picture.mode, picture.size, picture.tobytes()) for picture in pictures))
        groups.setdefault(key, []).append(k)
    places = {k: place for place, group in enumerate(groups.values()) for k in group}
    return [group[0] for group in groups.values()], [places[k] for k in range(len(prompts))]


def _read_once(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor], rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Inputs with which ``generate`` continues: prompts, mask, and a cache of all but the last token of each prompt.

    The inputs have one row per distinct prompt, the result has one row per completion: ``rows`` maps the latter to the
    former.
    """
    read = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, **inputs
    )
    cache = read.past_key_values
    cache.crop(ids.shape[1] - 1)
    cache.batch_select_indices(rows)
    if getattr(model.model, "rope_deltas", None) is not None:  # M-RoPE's offset of positions from token counts
        model.model.rope_deltas = model.model.rope_deltas[rows]
    return ids[rows], mask[rows], {"past_key_values": cache}


def _log_probs(logits: Sequence[torch.Tensor], tokens: torch.Tensor, temperature: float) -> list[list[float]]:
    """Log-probabilities of the tokens under the unfiltered policy, which is what a trainer recomputes.

    Args:
        logits: one tensor (rows x vocabulary) per step, before all logits processors.
        tokens: rows x steps.
        temperature: above 0.
    """
    import torch

    steps = [
        (step / temperature).log_softmax(-1).gather(-1, tokens[:, at : at + 1])[:, 0] for at, step in enumerate(logits)
    ]
    columns: list[list[float]] = torch.stack(steps, dim=1).tolist()
    return columns


def _end_tokens(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return end if isinstance(end, list) else [end]
