"""The published sizes of the models of the recipes, from their ``config.json``, for machines without the models."""

from __future__ import annotations

from typing import Any

_QWEN25_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
SIZES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        "vision_config": {**_QWEN25_VISION, "out_hidden_size": 2048},
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        "vision_config": {**_QWEN25_VISION, "out_hidden_size": 3584},
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2560,
            "patch_size": 16,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
}


def empty_model(name: str) -> Any:
    """A model of a published size, or of a folder, without storage for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if name in SIZES:
        size = SIZES[name]
        # The text part has a setting of its own for tied word embeddings.
        text = {**size["text_config"], "tie_word_embeddings": size["tie_word_embeddings"]}
        config = AutoConfig.for_model(**{**size, "text_config": text})
    else:
        config = AutoConfig.from_pretrained(name)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)
