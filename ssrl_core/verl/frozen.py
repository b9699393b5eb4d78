"""Keeps the vision tower as it is: ``actor_rollout_ref.actor.freeze_vision_tower``, which verl 0.9.1 does not read.

``recipe`` adds this module to ``model.external_lib`` if the setting is true, and every worker imports it before it
builds an engine.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

TOWERS = ("visual", "vision_tower", "vision_model")
"""Names of the vision tower, with its projection, in models of transformers."""


def freeze_vision_tower(module: torch.nn.Module) -> int:
    """Exclude the vision tower from training, with adapters in it. Returns the number of its parameters.

    Raises:
        ValueError: the model has no module with one of the names in ``TOWERS``.
    """
    towers = [part for name, part in module.named_modules() if name.rpartition(".")[2] in TOWERS]
    if not towers:
        raise ValueError(
            f"actor_rollout_ref.actor.freeze_vision_tower = true: {type(module).__name__} has no module named "
            f"{', '.join(TOWERS)}"
        )
    for tower in towers:
        tower.requires_grad_(False)
    return sum(parameter.numel() for tower in towers for parameter in tower.parameters())


def _freeze_before_sharding() -> None:
    build = FSDPEngine._build_fsdp_module  # verl calls it after LoRA's adapters and before the optimizer

    def build_fsdp_module(self: Any, module: torch.nn.Module) -> torch.nn.Module:
        if self.model_config.model_type == "language_model":  # not the critic
            freeze_vision_tower(module)
        return build(self, module)

    FSDPEngine._build_fsdp_module = build_fsdp_module  # type: ignore[method-assign]


_freeze_before_sharding()
