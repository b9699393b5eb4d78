"""Settings that verl 0.9.1 accepts and that have no effect. A run that sets one to another value is refused.

Found by searching verl's code for the name of every setting of its two configurations, and reading what remained.
``tests/test_recipes.py`` repeats the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

_LORA = "only the Megatron engines read it. LoRA adapts all modules that model.target_modules matches"

NOWHERE = {
    "grpo": {
        "actor_rollout_ref.actor.grad_clip": "set actor_rollout_ref.actor.optim.clip_grad",
        "actor_rollout_ref.actor.use_torch_compile": "set actor_rollout_ref.actor.fsdp_config.use_torch_compile",
        "actor_rollout_ref.ref.use_torch_compile": "set actor_rollout_ref.ref.fsdp_config.use_torch_compile",
        "actor_rollout_ref.nccl_timeout": "verl has no such setting elsewhere",
        "actor_rollout_ref.rollout.over_sample_rate": "verl has no such setting elsewhere",
        "actor_rollout_ref.rollout.multi_stage_wake_up": "verl has no such setting elsewhere",
        "actor_rollout_ref.rollout.multi_turn.num_repeat_rollouts": "set actor_rollout_ref.rollout.n",
        "critic.grad_clip": "set critic.optim.clip_grad",
        "critic.forward_max_token_len_per_gpu": "set critic.ppo_infer_max_token_len_per_gpu",
        "data.return_raw_input_ids": "verl has no such setting elsewhere",
    },
    "sft": {
        "data.balance_dp_token": "verl has no such setting elsewhere",
        "trainer.balance_batch": "verl has no such setting elsewhere",
    },
}
"""Settings that no code reads, with what to do instead, by training stage."""

LEGACY = {
    "actor_rollout_ref.actor.use_prefix_grouper": "verl has no such setting elsewhere",
    "algorithm.use_pf_ppo": "verl has no such setting elsewhere",
    "trainer.balance_batch": "batches are always balanced",
    "trainer.esi_redundant_time": "set trainer.time_limit and trainer.save_on_signal, which ssrl reads",
    "trainer.ray_wait_register_center_timeout": "verl has no such setting elsewhere",
}
"""Settings of GRPO that only verl's legacy trainer reads (``trainer.use_v1=false``), with what to do instead."""

OF_DATASET = (
    *("prompt_key", "image_key", "video_key", "audio_key", "truncation", "return_raw_chat", "return_full_prompt"),
    *("return_multi_modal_inputs", "filter_overlong_prompts", "filter_overlong_prompts_workers", "image_patch_size"),
    *("use_shm",),
)
"""Settings of ``data`` in GRPO that only verl's own dataset reads, which a mix replaces."""

OF_MEGATRON = ("freeze_vision_model", "freeze_vision_projection", "freeze_language_model")
"""Settings of ``model.lora`` that only verl's Megatron engines read."""


def no_effect(stage: Literal["sft", "grpo"], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting that has no effect in a configuration, with the reason and what to do instead."""
    yield from ((key, f"no code of verl 0.9.1 reads it; {instead}") for key, instead in NOWHERE[stage].items())
    model = "model" if stage == "sft" else "actor_rollout_ref.model"
    engine = config["engine"] if stage == "sft" else config["actor_rollout_ref"]["actor"]
    if engine["strategy"].startswith("fsdp"):
        yield from ((f"{model}.lora.{name}", _LORA) for name in OF_MEGATRON)
    if stage == "sft":
        return
    if config["trainer"]["use_v1"]:
        for key, instead in LEGACY.items():
            yield key, f"only verl's legacy trainer reads it (trainer.use_v1=false); {instead}"
    if config["data"]["custom_cls"]["path"] == "pkg://ssrl_core.verl.dataset":
        for name in OF_DATASET:
            yield f"data.{name}", "only verl's own dataset reads it; a mix makes prompts and images itself"
