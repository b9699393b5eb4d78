"""What verl imports in every worker before it looks up engines and rollouts.

``ssrl train`` names this module in ``actor_rollout_ref.model.external_lib`` (``model.external_lib`` for SFT).
"""

from __future__ import annotations

import verl.experimental.agent_loop.agent_loop as agent_loop
import verl.workers.engine.base as engine_base
import verl.workers.engine_workers as engine_workers
from tensordict import TensorDict
from verl.utils.device import get_device_name
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry


def _replica() -> type[RolloutReplica]:
    from .rollout import TransformersReplica

    return TransformersReplica


RolloutReplicaRegistry.register("transformers", _replica)
_ROLLOUT_REGISTRY[("transformers", "async")] = "ssrl_core.verl.rollout.WeightSender"
agent_loop._agent_loop_registry["ssrl_single_turn"] = {"_target_": "ssrl_core.verl.agent.TimedAgentLoop"}


def _register_cpu_engines() -> None:
    """verl registers its FSDP engines for accelerators only; they run on the CPU but for one detail."""
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

    from .sharing import outputs, share

    class NoOffload:
        """verl offloads forward-only engines (the KL reference) to pinned memory, which needs an accelerator to pin
        for; on the CPU there is nothing to offload from."""

        def _build_fsdp_module(self, module):  # type: ignore[no-untyped-def]
            config = self.engine_config
            forward_only = config.forward_only
            object.__setattr__(config, "forward_only", False)
            try:
                return super()._build_fsdp_module(module)  # type: ignore[misc]
            finally:
                object.__setattr__(config, "forward_only", forward_only)

    @EngineRegistry.register("language_model", ["fsdp2"], device="cpu")
    class CpuEngineWithLMHead(NoOffload, FSDPEngineWithLMHead):
        """verl's engine, with each prompt computed once for all its rollouts."""

        def prepare_model_inputs(self, micro_batch):  # type: ignore[no-untyped-def]
            shared = share(micro_batch)
            if shared is None:
                return super().prepare_model_inputs(micro_batch)
            return dict(shared.inputs), {"shared": shared}

        def prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func):  # type: ignore[no-untyped-def]
            if "shared" in output_args:
                return outputs(output_args["shared"], output.logits, micro_batch)
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)

    @EngineRegistry.register("value_model", ["fsdp2"], device="cpu")
    class CpuEngineWithValueHead(NoOffload, FSDPEngineWithValueHead):
        pass


def mark_ragged_dimension(data: TensorDict) -> None:
    """Mark which dimension of the M-RoPE position ids is ragged, in place.

    Stands in for verl 0.9.1's ``maybe_fix_3d_position_ids``, which always marks the last one. When all sequences of a
    batch have the same length, TransferQueue has stacked them along another dimension and verl's marking makes the
    next ``unbind`` raise, in the middle of a run. No registry reaches this function.
    """
    ids = data.get("position_ids", None)
    if ids is None or not ids.is_nested or ids.dim() != 3:
        return
    if ids._ragged_idx == 1 and int(ids.offsets()[-1]) == ids.values().shape[0]:
        data["position_ids"] = nested_tensor_from_tensor_list(list(ids.unbind(0)), ragged_idx=2)
    else:
        ids._ragged_idx = 2


engine_base.maybe_fix_3d_position_ids = engine_workers.maybe_fix_3d_position_ids = mark_ragged_dimension

if get_device_name() == "cpu":
    _register_cpu_engines()
