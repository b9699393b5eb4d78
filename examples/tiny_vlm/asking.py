"""Put questions about pictures to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from transformers import AutoProcessor

from ssrl_core.completions import complete, load_model


def answers(
    folder: Path, asked: Sequence[tuple[Sequence[Image.Image], str]], *, longest: int, batch: int = 48
) -> list[str]:
    """What the model in ``folder`` writes on each (pictures, question), greedily, in at most ``longest`` tokens."""
    model, processor = load_model(str(folder)), AutoProcessor.from_pretrained(folder)
    result = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        prompts = []
        for images, question in part:
            content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            prompts.append(list(processor(text=[text], images=list(images))["input_ids"][0]))
        written = complete(model, processor, prompts, [images for images, _ in part], max_new_tokens=longest)
        result += [processor.tokenizer.decode(w.token_ids, skip_special_tokens=True) for w in written]
    return result
