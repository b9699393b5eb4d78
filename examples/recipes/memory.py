"""Print what memory each recipe of this folder needs on a GPU, as a table.

    python examples/recipes/memory.py

Nothing is measured. Weights, gradients, Adam's state, and the weights and cache of vLLM are computed from the recipes
and the parameter counts of the models, which are built without storage. Activations and logits are estimated; see
``estimated``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sizes import SIZES, empty_model

from ssrl_core.verl.recipe import Stage, compose, read_recipe

GIB = 2**30
GPU = 80  # GiB of a GPU; `gpu_memory_utilization` is a share of it
PIXELS = 512 * 512  # maximum of an image
IMAGES = 5  # maximum of a prompt: cropped_patch shows the picture and four pieces


class Model(NamedTuple):
    """A model: its configuration, and numbers of parameters.

    Attributes:
        parameters: all.
        layer: of a text layer.
        embeddings: of the word embeddings.
        per_rank: of a LoRA adapter of rank 1.
        config: of transformers.
    """

    parameters: int
    layer: int
    embeddings: int
    per_rank: int
    config: Any


class Need(NamedTuple):
    """Memory in GiB per GPU.

    Attributes:
        weights, gradients, adam, activations: during training.
        resting, vllm_weights, vllm_cache: during generation; ``resting`` is what the trainer keeps.
        host: memory of the host, per node.
        cache_tokens: number of tokens that fit into vLLM's cache.
    """

    weights: float
    gradients: float
    adam: float
    activations: float
    resting: float
    vllm_weights: float
    vllm_cache: float
    host: float
    cache_tokens: int

    @property
    def peak(self) -> float:
        """GiB: the larger of the two phases."""
        training = self.weights + self.gradients + self.adam + self.activations
        return max(training, self.resting + self.vllm_weights + self.vllm_cache)


@cache
def model(name: str) -> Model:
    """A model by its published name."""
    import torch

    built = empty_model(name)
    text = built.model.language_model
    linear = [m for key, m in built.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in key]
    embeddings = {id(p): p.numel() for p in (text.embed_tokens.weight, built.lm_head.weight)}
    return Model(
        parameters=sum(p.numel() for p in built.parameters()),
        layer=sum(p.numel() for p in text.layers[0].parameters()),
        embeddings=sum(embeddings.values()),
        per_rank=sum(m.in_features + m.out_features for m in linear),
        config=built.config,
    )


def need(stage: Stage, config: Mapping[str, Any], size: Model) -> Need:
    """The memory of a composed recipe."""
    gpus = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
    if stage == "sft":
        rank, micro, tokens = config["model"]["lora_rank"], config["data"]["micro_batch_size_per_gpu"], 0
        length, engine = config["data"]["max_length"], config["engine"]
    else:
        policy = config["actor_rollout_ref"]
        rank, micro = policy["model"]["lora_rank"], policy["actor"]["ppo_micro_batch_size_per_gpu"]
        length = config["data"]["max_prompt_length"] + config["data"]["max_response_length"]
        engine = policy["actor"]["fsdp_config"]
    adapter = rank * size.per_rank
    trained = adapter or size.parameters
    weights, gradients, adam = 4 * (size.parameters + adapter) / gpus, 4 * trained / gpus, 8 * trained / gpus
    resting = (0 if engine["param_offload"] else weights) + (0 if engine["optimizer_offload"] else adam)
    vllm = cache_bytes = host = 0.0
    if stage == "grpo":
        rollout = policy["rollout"]
        vllm = 2 * size.parameters / rollout["tensor_model_parallel_size"]
        cache_bytes = rollout["gpu_memory_utilization"] * GPU * GIB - vllm - 4 * GIB  # 4: vLLM's own activations
        text = size.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head
        tokens = int(cache_bytes / token)
        reference = 0 if adapter else 4 * size.parameters / gpus  # in host memory; LoRA needs none
        moved = weights * engine["param_offload"] + adam * engine["optimizer_offload"]
        host = (reference + moved) * config["trainer"]["n_gpus_per_node"]
    in_gib = (weights, gradients, adam, estimated(size, length=length, micro=micro), resting, vllm, cache_bytes, host)
    return Need(*(part / GIB for part in in_gib), tokens)


def estimated(size: Model, *, length: int, micro: int) -> float:
    """Bytes of activations of a micro-batch of sequences of maximum length, with gradient checkpointing.

    In 16 bits: the input of each text and vision layer; one text layer that is recomputed (per token, 8 times its width
    and 3 times that of its MLP); two gathered layers and the embeddings. Logits: 16 bits, as much for their gradient,
    and 32 bits for the softmax.
    """
    text, vision = size.config.text_config, size.config.vision_config
    tokens, patches = micro * length, micro * IMAGES * PIXELS / vision.patch_size**2
    kept = tokens * text.num_hidden_layers * text.hidden_size + patches * vision.depth * vision.hidden_size
    anew = tokens * (8 * text.hidden_size + 3 * text.intermediate_size)
    gathered = 2 * size.layer + size.embeddings
    return 2 * (kept + anew + gathered) + tokens * text.vocab_size * (2 + 2 + 4)


def name_of(path: Path) -> str:
    """The published name of the model of a recipe."""
    prefixes = {name.removeprefix("Qwen/").removesuffix("-Instruct").lower(): name for name in SIZES}
    return next(name for prefix, name in prefixes.items() if path.name.startswith(prefix))


def leaves(folder: Path) -> list[Path]:
    """The recipes of a folder that name a model."""
    return sorted(path for path in folder.glob("*.yaml") if path.name.startswith("qwen"))


def stage_of(path: Path) -> Stage:
    """``"sft"`` or ``"grpo"``."""
    return "sft" if "-sft" in path.stem else "grpo"


def table(folder: Path) -> str:
    """The table, in Markdown."""
    lines = [
        "| recipe | GPUs | weights | gradients | Adam | activations (estimated) | at rest | vLLM weights | its cache "
        "(tokens) | peak a GPU | host, a node |",
        "|---|" + "--:|" * 10,
    ]
    for path in leaves(folder):
        config = compose(stage_of(path), read_recipe(path), [], device="cuda")
        row = need(stage_of(path), config, model(name_of(path)))
        gpus = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
        cells = [*row[:5], row.vllm_weights]
        kept = f"{row.vllm_cache:.0f} ({row.cache_tokens / 1e6:.2f} M)" if row.cache_tokens else "-"
        numbers = [f"{cell:.1f}" if cell else "-" for cell in cells]
        host = f"{row.host:.0f}" if row.host else "-"
        lines.append(f"| {' | '.join([path.stem, str(gpus), *numbers, kept, f'**{row.peak:.0f}**', host])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
