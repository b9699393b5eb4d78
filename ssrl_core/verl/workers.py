"""Registrations and changes of verl 0.9.1, which every worker imports before it looks up engines and rollouts.

``ssrl train`` names this module in ``actor_rollout_ref.model.external_lib`` (``model.external_lib`` for SFT). Private
names of verl are used only here and in ``ssrl_core.verl.sampler``.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import verl.experimental.agent_loop.agent_loop as agent_loop
import verl.utils.tracking as tracking
import verl.workers.engine.base as engine_base
import verl.workers.engine_workers as engine_workers
from tensordict import TensorDict
from verl.utils.device import get_device_name
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

from .agent import TRAJECTORY
from .stopping import end_on_request


def _replica() -> type[RolloutReplica]:
    from .rollout import TransformersReplica

    return TransformersReplica


RolloutReplicaRegistry.register("transformers", _replica)
_ROLLOUT_REGISTRY[("transformers", "async")] = "ssrl_core.verl.rollout.WeightSender"
_ROLLOUT_REGISTRY[("vllm", "async")] = "ssrl_core.verl.weights.Sender"
agent_loop._agent_loop_registry["ssrl_single_turn"] = {"_target_": "ssrl_core.verl.agent.TimedAgentLoop"}


def _describe_rollouts() -> None:
    """Set ``TRAJECTORY`` for every rollout.

    verl knows of a rollout whether it belongs to a validation, and passes that to no agent loop. The method that wraps
    an agent loop is the only place that has it. Each rollout is an asyncio task with a context of its own.
    """
    run = agent_loop.AgentLoopWorker._run_agent_loop

    async def run_agent_loop(self: Any, sampling_params: Any, trajectory: dict[str, Any], **kwargs: Any) -> Any:
        TRAJECTORY.set(trajectory)
        return await run(self, sampling_params, trajectory, **kwargs)

    agent_loop.AgentLoopWorker._run_agent_loop = run_agent_loop  # type: ignore[method-assign]


_describe_rollouts()


class _AppendingLogger(tracking.FileLogger):
    """verl's logger ``file``, without truncating the file: a run that was resumed continues in it."""

    def __init__(self, project_name: str, experiment_name: str) -> None:
        self.filepath = os.environ["VERL_FILE_LOGGER_PATH"]
        self.fp = open(self.filepath, "ab", buffering=0)  # noqa: SIM115, verl closes it


tracking.FileLogger = _AppendingLogger  # type: ignore[misc]
end_on_request()


def _register_cpu_engines() -> None:
    """Register verl's FSDP engines for the CPU. verl registers them for accelerators only."""
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

    from .sharing import outputs, share

    class OnCpu:
        """What both engines change."""

        def initialize(self):  # type: ignore[no-untyped-def]
            """Seed torch's global generator, which dropout and new weights use. verl leaves it unseeded."""
            torch.manual_seed(self.engine_config.seed)
            super().initialize()  # type: ignore[misc]

        def _build_fsdp_module(self, module):  # type: ignore[no-untyped-def]
            """Keep forward-only engines, such as the KL reference, where they are.

            verl offloads them to pinned memory, which only exists next to an accelerator.
            """
            config = self.engine_config
            forward_only = config.forward_only
            object.__setattr__(config, "forward_only", False)
            try:
                return super()._build_fsdp_module(module)  # type: ignore[misc]
            finally:
                object.__setattr__(config, "forward_only", forward_only)

    @EngineRegistry.register("language_model", ["fsdp2"], device="cpu")
    class CpuEngineWithLMHead(OnCpu, FSDPEngineWithLMHead):
        """verl's engine, which computes each prompt once for all its rollouts."""

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
    class CpuEngineWithValueHead(OnCpu, FSDPEngineWithValueHead):
        pass


def mark_ragged_dimension(data: TensorDict) -> None:
    """Mark which dimension of the M-RoPE position ids is ragged, in place.

    Replaces verl's ``maybe_fix_3d_position_ids``, which always marks the last dimension. If all sequences of a batch
    have the same length, TransferQueue stacks them along another dimension, and after verl's marking the next
    ``unbind`` raises in the middle of a run. No registry of verl reaches this function.
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
