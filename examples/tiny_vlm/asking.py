"""Asks a model questions about images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor

from ssrl_core.models.completions import complete, load_model
from ssrl_core.models.tokens import user_message


def answers(
    folder: Path, asked: Sequence[tuple[Sequence[Image.Image], str]], *, longest: int, batch: int = 48
) -> list[str]:
    """The greedy completion of each (images, question) by the model in ``folder``, of at most ``longest`` tokens."""
    model, processor = load_model(str(folder)), AutoProcessor.from_pretrained(folder)
    result = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        prompts = []
        for images, question in part:
            text = prompt(processor, images, question)
            prompts.append(list(processor(text=[text], images=list(images))["input_ids"][0]))
        written = complete(model, processor, prompts, [images for images, _ in part], max_new_tokens=longest)
        result += [processor.tokenizer.decode(w.token_ids, skip_special_tokens=True) for w in written]
    return result


def log_probs(folder: Path, asked: Sequence[tuple[Sequence[Image.Image], str, str]], *, batch: int = 96) -> list[float]:
    """The log-probability of each (images, question, answer): that the model writes this answer and ends."""
    model, processor = load_model(str(folder)), AutoProcessor.from_pretrained(folder)
    result: list[float] = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        answers = [answer + processor.tokenizer.eos_token for *_, answer in part]
        inputs = processor(
            text=[prompt(processor, *ask[:2]) + answer for ask, answer in zip(part, answers, strict=True)],
            images=[picture for images, *_ in part for picture in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        with torch.inference_mode():
            known = model(**inputs).logits[:, :-1].log_softmax(-1)
        known = known.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        lengths = [len(ids) for ids in processor.tokenizer(answers)["input_ids"]]
        result += [float(row[-length:].sum()) for row, length in zip(known, lengths, strict=True)]
    return result


def prompt(processor: Any, images: Sequence[Image.Image], question: str) -> str:
    """The prompt in the model's chat template: the images, then the question."""
    message = user_message("<image>" * len(images) + question, lambda _: {"type": "image"})
    return str(processor.apply_chat_template([message], add_generation_prompt=True))
