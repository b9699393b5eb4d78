"""What verl's vLLM rollouts need on a machine without an accelerator. For tests and small experiments, not for users.

vLLM 0.24's CPU backend packs the weights of linear layers for its kernels while it loads a model and throws the
originals away, so there is nothing to load new weights into. Here the originals stay. After an update verl asks vLLM to
process all weights again, which packs them anew.

``SETTINGS`` belong into verl's section ``actor_rollout_ref.rollout``.
"""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    # After a part of a prompt vLLM takes back the random numbers of its request, which torch cannot on a CPU.
    "enable_chunked_prefill": False,
    "engine_kwargs": {
        "vllm": {
            "enable_sleep_mode": False,  # vLLM refuses it on a CPU
            "kv_cache_memory_bytes": 2**28,  # without a number, vLLM takes half the memory of the machine
        }
    },
}


def keep_weights() -> None:
    """Make vLLM in this process keep the weights that it packs. Call it before a model is loaded."""
    from vllm.model_executor.layers import utils

    pack = utils.dispatch_cpu_unquantized_gemm

    def pack_and_keep(layer: Any, remove_weight: bool) -> None:
        pack(layer, remove_weight=False)

    utils.dispatch_cpu_unquantized_gemm = pack_and_keep
