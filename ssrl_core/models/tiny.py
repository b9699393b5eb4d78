"""A tiny vision-language model of the Qwen2.5-VL architecture with random weights, its processor and its tokenizer.

For demonstrations and tests on a CPU. It has about half a million parameters and loads like any model of its family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..mix import Mix

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
FORM_TOKENS = ("<think>", "</think>", "\\boxed{", "}")

# Larger than transformers' 0.02. Attention to visual tokens is then as strong as to text from the start, and GRPO on
# visual rewards begins to improve after 10 steps instead of 20.
_INITIALIZER_RANGE = 0.05

# M-RoPE gives 1 of every 16 rotary frequencies to time, 2 to rows and 13 to columns. A small image has few rows and
# columns. With this base the frequencies that distinguish them rotate by 0.65, 0.42 and 0.27 rad per step, and the
# slowest stay nearly constant over a prompt. With a smaller base all rotate fast, and a question does not find a label
# far away; with the usual base of 10,000 and more all are slow, and the model cannot tell positions apart.
_ROPE_THETA = 1000.0

_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Answers consist of digits, dashes and single capitals: each stays a token. Other text merges across spaces, so that
# the constant sentences of a prompt become few tokens.
_ANSWER_PARTS = r"[0-9]|-|\b[A-Z]\b|\n"


def build_tiny_model(
    mix: Mix,
    folder: str | Path,
    *,
    seed: int = 0,
    vocabulary: int = 1024,
    texts: int = 256,
    hidden: int = 128,
    layers: int = 2,
    vision_hidden: int | None = None,
    vision_layers: int = 2,
    patch_size: int = 14,
    head: int = 32,
    completion: str = "",
    more_texts: Iterable[str] = (),
) -> int:
    """The number of parameters of a new model, after writing the model, its processor and its tokenizer into a folder.

    Args:
        mix: the tokenizer is trained on its prompts and truths.
        folder: created if it does not exist.
        seed: seed of the weights.
        vocabulary: maximum size of the vocabulary.
        texts: number of samples on whose prompts the tokenizer is trained.
        hidden: width of the language model, a multiple of ``head``.
        layers: depth of the language model.
        vision_hidden: width of the vision tower, a multiple of ``head``; half of ``hidden`` if None.
        vision_layers: depth of the vision tower. All layers use full attention.
        patch_size: in pixels. A visual token covers 2 x 2 patches.
        head: width of an attention head, a multiple of 32.
        completion: a text on which the tokenizer is also trained.
        more_texts: further texts on which the tokenizer is trained.
    """
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    vision_hidden = vision_hidden or hidden // 2
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_ANSWER_PARTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        chain(_texts(mix, texts, completion), more_texts),
        trainers.BpeTrainer(
            vocab_size=vocabulary - len(SPECIAL_TOKENS) - len(FORM_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=64,
            show_progress=False,
        ),
    )
    bpe.add_special_tokens(list(SPECIAL_TOKENS))
    bpe.add_tokens([AddedToken(token, normalized=False) for token in FORM_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        chat_template=_CHAT_TEMPLATE,
    )
    image_processor = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 256, patch_size=patch_size)
    video_processor = Qwen2VLVideoProcessor(patch_size=patch_size)  # vLLM tries it with the model's vision tower
    processor = Qwen2_5_VLProcessor(image_processor, tokenizer, video_processor, chat_template=_CHAT_TEMPLATE)
    processor.save_pretrained(folder)

    def token_id(token: str) -> int:
        return int(bpe.token_to_id(token))

    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // head,
            "num_key_value_heads": hidden // head // (2 if hidden // head % 2 == 0 else 1),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "initializer_range": _INITIALIZER_RANGE,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [head // 32, head // 16, 13 * head // 32],
                "rope_theta": _ROPE_THETA,
            },
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": 2 * vision_hidden,
            "num_heads": vision_hidden // head,
            "patch_size": patch_size,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": list(range(vision_layers)),
            "window_size": 4 * patch_size,
            "initializer_range": _INITIALIZER_RANGE,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    config.initializer_range = _INITIALIZER_RANGE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = token_id("<|im_end|>")
    model.generation_config.pad_token_id = token_id("<|endoftext|>")
    # An untrained model would sample image tokens, for which there is no image.
    model.generation_config.suppress_tokens = [token_id(t) for t in SPECIAL_TOKENS if t != "<|im_end|>"]
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _texts(mix: Mix, count: int, completion: str) -> Iterator[str]:
    for index in range(min(count, len(mix))):
        example = mix[index]
        yield example.prompt.replace("<image>", "")
        yield example.sample.truth
        yield f"user\n{completion}\nassistant\n"
