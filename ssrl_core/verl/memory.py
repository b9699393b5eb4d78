"""Memory that a run needs on each GPU, computed from its configuration; nothing is measured.

Weights, gradients, Adam's state, and the weights and cache of vLLM are computed from the configuration and the
parameter counts of the model, which is built without storage. Activations and logits are estimated; see ``estimated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .recipe import Stage
from .sizes import SIZES, empty_model

GIB = 2**30
GPU = 80  # GiB of a GPU; `gpu_memory_utilization` is a share of it


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


def model_of(path: str) -> str | None:
    """A folder with a model, or the published name of a known model that a path or name contains; None for others."""
    if (Path(path) / "config.json").is_file():
        return path
    names = {name.removeprefix("Qwen/").removesuffix("-Instruct").casefold(): name for name in SIZES}
    return next((name for part, name in names.items() if part in path.casefold()), None)


@cache
def model(name: str) -> Model:
    """A model by its folder or its published name."""
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
    """The memory of a composed configuration on GPUs of ``GPU`` GiB."""
    gpus = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
    if stage == "sft":
        data, engine, rank = config["data"], config["engine"], config["model"]["lora_rank"]
        prompt = length = data["max_length"]
        packed, micro = data["max_token_len_per_gpu"], data["micro_batch_size_per_gpu"]
        dynamic = data["use_dynamic_bsz"]
    else:
        policy, data = config["actor_rollout_ref"], config["data"]
        actor, rank = policy["actor"], policy["model"]["lora_rank"]
        prompt, engine = data["max_prompt_length"], actor["fsdp_config"]
        length = prompt + data["max_response_length"]
        packed, micro = actor["ppo_max_token_len_per_gpu"], actor["ppo_micro_batch_size_per_gpu"]
        dynamic = actor["use_dynamic_bsz"]
    tokens = max(packed, length) if dynamic else micro * length
    shards = engine["fsdp_size"] if engine["fsdp_size"] > 0 else gpus
    adapter = rank * size.per_rank
    trained = adapter or size.parameters
    weights, gradients, adam = 4 * (size.parameters + adapter) / shards, 4 * trained / shards, 8 * trained / shards
    resting = (0 if engine["param_offload"] else weights) + (0 if engine["optimizer_offload"] else adam)
    vllm = cache_bytes = host = 0.0
    cached = 0
    if stage == "grpo":
        rollout = policy["rollout"]
        vllm = 2 * size.parameters / rollout["tensor_model_parallel_size"]
        cache_bytes = rollout["gpu_memory_utilization"] * GPU * GIB - vllm - 4 * GIB  # 4: vLLM's own activations
        text = size.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        cached = int(cache_bytes / (2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head))
        needs_reference = not adapter and (actor["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"])
        reference = 4 * size.parameters / shards if needs_reference else 0  # in host memory; LoRA needs none
        moved = weights * engine["param_offload"] + adam * engine["optimizer_offload"]
        host = (reference + moved) * config["trainer"]["n_gpus_per_node"]
    activations = estimated(size, tokens=tokens, visual=tokens * prompt // length)
    return Need(
        weights=weights / GIB,
        gradients=gradients / GIB,
        adam=adam / GIB,
        activations=activations / GIB,
        resting=resting / GIB,
        vllm_weights=vllm / GIB,
        vllm_cache=cache_bytes / GIB,
        host=host / GIB,
        cache_tokens=cached,
    )


def estimated(size: Model, *, tokens: int, visual: int) -> float:
    """Bytes of activations of a micro-batch, with gradient checkpointing.

    In 16 bits: the input of each text and vision layer; one text layer that is recomputed (per token, 8 times its width
    and 3 times that of its MLP); two gathered layers and the embeddings. Logits: 16 bits, as much for their gradient,
    and 32 bits for the softmax.

    Args:
        size: of the model.
        tokens: in the micro-batch.
        visual: how many of them are visual at most; each is made of four patches.
    """
    text, vision = size.config.text_config, size.config.vision_config
    kept = tokens * text.num_hidden_layers * text.hidden_size + 4 * visual * vision.depth * vision.hidden_size
    anew = tokens * (8 * text.hidden_size + 3 * text.intermediate_size)
    gathered = 2 * size.layer + size.embeddings
    return 2 * (kept + anew + gathered) + tokens * text.vocab_size * (2 + 2 + 4)


def checkpoint_bytes(stage: Stage, config: Mapping[str, Any], size: Model) -> int:
    """Bytes of one checkpoint on disk: what ``save_contents`` names, with weights and Adam's state in 32 bits."""
    if stage == "sft":
        rank, contents = config["model"]["lora_rank"], config["checkpoint"]["save_contents"]
    else:
        policy = config["actor_rollout_ref"]
        rank, contents = policy["model"]["lora_rank"], policy["actor"]["checkpoint"]["save_contents"]
    adapter = rank * size.per_rank
    parts = {
        "model": 4 * (size.parameters + adapter),
        "optimizer": 8 * (adapter or size.parameters),
        "hf_model": 4 * (size.parameters + adapter),
    }
    return sum(count for part, count in parts.items() if part in contents)
