"""Everything of verl 0.9.1 and vLLM 0.24 that this package calls, extends or replaces, with the reason.

``faults`` compares the list with the installed versions. docs/upgrading-verl.md says how to go to another version.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

Use = Literal["call", "extend", "register", "replace"]


class Name(NamedTuple):
    """A name in another package.

    Attributes:
        use: ``call``: we call it or read it. ``extend``: we override it in a subclass. ``register``: we add an entry to
            a registry. ``replace``: we put another function in its place, because nothing smaller works.
        path: dotted name.
        parameters: names of its parameters, in order; None if it is not called with a signature that matters.
        why: what we need it for.
    """

    use: Use
    path: str
    parameters: str | None
    why: str


_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_LOOP = "verl.experimental.agent_loop"
_ROLLOUT = "verl.workers.rollout"
_VLLM = "verl.workers.rollout.vllm_rollout"
_SFT = "verl.utils.dataset.multiturn_sft_dataset.MultiTurnSFTDataset"
_V1 = "verl.trainer.ppo.v1"
_BUFFER = f"{_V1}.replay_buffer.ReplayBuffer"
_TENSORS = "verl.utils.tensordict_utils"

NAMES = (
    # The entry points and their configuration (launch, recipe).
    Name("call", "verl.trainer.main_ppo.main", None, "the process of a GRPO run"),
    Name("call", "verl.trainer.sft_trainer.main", None, "the process of a cold start"),
    # Data (dataset).
    Name("extend", f"{_SFT}.__init__", "self parquet_files tokenizer config processor max_samples", "cold-start rows"),
    Name("extend", f"{_SFT}._download", "self", "rows come from a mix and not from Parquet files"),
    Name("extend", f"{_SFT}._read_files_and_process", "self", "the same"),
    Name(
        "extend",
        f"{_SFT}._process_single_message",
        "self index message full_message tools enable_thinking",
        "the tokens of a completion are those that a rollout may write",
    ),
    Name(
        "extend",
        f"{_SFT}.sanity_check",
        "self input_ids messages tools enable_thinking",
        "verl compares with the template's view of past turns",
    ),
    # Rollouts (agent, workers).
    Name("register", f"{_LOOP}.agent_loop._agent_loop_registry", None, "our agent loop by its name"),
    Name(
        "extend",
        f"{_LOOP}.single_turn_agent_loop.SingleTurnAgentLoop.run",
        "self sampling_params priority kwargs",
        "a seed for every rollout, and times",
    ),
    Name(
        "extend",
        f"{_LOOP}.single_turn_agent_loop.SingleTurnAgentLoop.process_multi_modal_info",
        "self messages",
        "the time that images take",
    ),
    Name("call", f"{_LOOP}.agent_loop.AgentLoopOutput", None, "type of a rollout"),
    Name(
        "replace",
        f"{_LOOP}.agent_loop.AgentLoopWorker._run_agent_loop",
        "self sampling_params trajectory agent_name trace kwargs",
        "verl tells no agent loop whether its rollout belongs to a validation",
    ),
    Name("register", f"{_ROLLOUT}.base._ROLLOUT_REGISTRY", None, "what sends weights to a rollout server"),
    Name("extend", f"{_ROLLOUT}.base.BaseRollout.__init__", "self config model_config device_mesh args kwargs", "same"),
    Name("extend", f"{_ROLLOUT}.base.BaseRollout.update_weights", "self weights wire_format kwargs", "same"),
    Name("register", f"{_ROLLOUT}.replica.RolloutReplicaRegistry.register", "name loader", "rollouts on transformers"),
    Name("extend", f"{_ROLLOUT}.replica.RolloutReplica.launch_servers", "self", "rollouts on transformers"),
    Name("call", f"{_ROLLOUT}.replica.TokenOutput", None, "what a rollout server returns"),
    Name("call", "verl.workers.config.HFModelConfig", None, "path and processor of the policy"),
    Name("call", "verl.utils.config.omega_conf_to_dataclass", "config dataclass_type", "the same"),
    # Batches (sampler, sharing, workers).
    Name(
        "extend",
        f"{_BUFFER}.__init__",
        "self trainer_mode trainer_config max_off_policy_threshold max_off_policy_strategy sampler_kwargs "
        "poll_interval refill_fn filter_groups_metric train_batch_size gen_batch_size max_inflight_gen_batches "
        "sync_refill_failed_groups",
        "shorter polling; refill_fn is a method of the trainer, which leads to its dataset",
    ),
    Name("extend", f"{_BUFFER}.sample", "self global_steps partition_id batch_size", "fixed order, metrics by task"),
    Name(
        "call",
        f"{_V1}.trainer_base.PPOTrainer._next_train_batch",
        "self num_prompts",
        "number the prompts",
    ),
    Name("call", "transfer_queue.kv_batch_get", "keys partition_id select_fields", "rollouts of a step"),
    Name("call", f"{_TENSORS}.assign_non_tensor_stack", "tensor_dict key val", "ids of prompts"),
    Name("call", f"{_TENSORS}.get_non_tensor_data", "data key default", "settings of a micro-batch"),
    Name("call", f"{_TENSORS}.nested_tensor_from_tensor_list", "tensors ragged_idx", "position ids"),
    Name("call", "verl.utils.model.extract_multi_modal_inputs", "batch_data indices", "images of a micro-batch"),
    Name(
        "call", "verl.utils.torch_functional.logprobs_from_logits", "logits labels inplace_backward", "each prompt once"
    ),
    Name("call", "verl.utils.torch_functional.entropy_from_logits", "logits", "sharing"),
    Name(
        "replace",
        "verl.workers.engine.base.maybe_fix_3d_position_ids",
        "data",
        "it marks the wrong dimension if all sequences of a batch have one length",
    ),
    Name("replace", "verl.workers.engine_workers.maybe_fix_3d_position_ids", "data", "the same function"),
    # How a run ends and what it writes (stopping, workers), and the vision tower (frozen).
    Name("replace", f"{_V1}.trainer_base.PPOTrainer.fit", "self agent_loop_manager", "a run ends after its step"),
    Name("call", f"{_V1}.trainer_base.PPOTrainer._save_checkpoint", "self", "a checkpoint before the end"),
    Name("replace", "verl.trainer.sft_trainer.SFTTrainer._get_batch_seqlens", "self data", "so does a cold start"),
    Name("replace", "verl.utils.tracking.FileLogger", "project_name experiment_name", "a resumed run appends"),
    Name("replace", f"{_ENGINE}.FSDPEngine._build_fsdp_module", "self module", "verl ignores freeze_vision_tower"),
    # A machine without an accelerator (platform, workers, vllm_cpu).
    Name("extend", "verl.plugin.platform.PlatformBase", None, "verl has no platform for a CPU"),
    Name("register", "verl.plugin.platform.PlatformRegistry.register", "platform", "the same"),
    Name("call", "verl.plugin.platform.set_platform", "platform", "the same"),
    Name(
        "replace",
        "torch.distributed.init_process_group",
        None,
        "verl asks for the backend cpu:gloo twice, which torch refuses",
    ),
    Name("call", "verl.utils.device.get_device_name", "", "whether this is such a machine"),
    Name(
        "register", "verl.workers.engine.EngineRegistry.register", "model_type backend device vendor", "FSDP on a CPU"
    ),
    Name("extend", f"{_ENGINE}.FSDPEngineWithLMHead.initialize", "self", "a seed for torch"),
    Name("extend", f"{_ENGINE}.FSDPEngineWithLMHead._build_fsdp_module", "self module", "no pinned memory"),
    Name("extend", f"{_ENGINE}.FSDPEngineWithLMHead.prepare_model_inputs", "self micro_batch", "each prompt once"),
    Name(
        "extend",
        f"{_ENGINE}.FSDPEngineWithLMHead.prepare_model_outputs",
        "self output output_args micro_batch logits_processor_func",
        "each prompt once",
    ),
    Name("extend", f"{_ENGINE}.FSDPEngineWithValueHead._build_fsdp_module", "self module", "no pinned memory"),
)
"""Names in verl, and in what it brings."""

WITH_VLLM = (
    Name(
        "extend",
        f"{_VLLM}.vllm_rollout.ServerAdapter.update_weights",
        "self weights global_steps wire_format kwargs",
        "an update that fails ends, instead of waiting forever",
    ),
    Name(
        "call", f"{_VLLM}.vllm_rollout.ServerAdapter._execute_method", "self method non_block timeout args kwargs", ""
    ),
    Name(
        "extend",
        f"{_VLLM}.bucketed_weight_transfer.BucketedWeightSender.__init__",
        "self zmq_handle bucket_size_mb use_shm",
        "the same",
    ),
    Name("extend", f"{_VLLM}.bucketed_weight_transfer.BucketedWeightSender._init_socket", "self", "the same"),
    Name(
        "extend",
        f"{_VLLM}.utils.vLLMColocateWorkerExtension._get_zmq_handle",
        "self",
        "runs on one machine have sockets of their own",
    ),
    Name("call", "vllm.platforms.current_platform", None, "whether vLLM computes on a CPU"),
    Name(
        "replace",
        "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm",
        "layer remove_weight",
        "vLLM throws away the weights that it packs for the CPU, so that no new ones can be loaded",
    ),
)
"""Names in vLLM, and in modules of verl that import it."""


def faults(names: Iterable[Name]) -> Iterator[str]:
    """What differs in the installed versions, with what to do."""
    for name in names:
        try:
            parameters = _parameters(_find(name.path))
        except (ImportError, AttributeError) as err:
            yield f"{name.path} is gone ({err}). We {name.use} it: {name.why}. See docs/upgrading-verl.md"
            continue
        if name.parameters is not None and parameters != name.parameters:
            yield (
                f"{name.path} has the parameters ({parameters}) instead of ({name.parameters}). We {name.use} it: "
                f"{name.why}. See docs/upgrading-verl.md"
            )


def _find(path: str) -> Any:
    """The object of a dotted name."""
    module, names = path, list[str]()
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError as err:
            if "." not in module or not path.startswith(str(err.name)):
                raise
            module, _, last = module.rpartition(".")
            names.insert(0, last)
    for name in names:
        found = getattr(found, name)
    return found


def _parameters(found: Any) -> str | None:
    try:
        return " ".join(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # not callable
        return None


if __name__ == "__main__":
    names = (*NAMES, *WITH_VLLM) if importlib.util.find_spec("vllm") else NAMES
    found = list(faults(names))
    print("\n".join(found) or f"all {len(names)} names are there")
    raise SystemExit(bool(found))
