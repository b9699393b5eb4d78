"""verl's platform for a machine without an accelerator.

On such a machine ``ssrl train`` names this module in ``VERL_USE_EXTERNAL_MODULES``, and verl imports it at the end of
``import verl`` in every process. It may not use much of verl, whose own import has not ended at that moment.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, set_platform


def _nothing(*_: Any, **__: Any) -> None:
    return None


class _CpuDevice(types.ModuleType):
    """``torch.cpu`` with the functions for memory accounting that verl calls on every device module."""

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = staticmethod(lambda *_, **__: 0)
    mem_get_info = staticmethod(lambda *_, **__: (0, 0))
    empty_cache = reset_peak_memory_stats = set_device = synchronize = staticmethod(_nothing)
    get_device_name = staticmethod(lambda *_, **__: "CPU")
    is_available = staticmethod(lambda: False)  # verl means: is there an accelerator?
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    get_rng_state, set_rng_state = staticmethod(torch.get_rng_state), staticmethod(torch.set_rng_state)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """A machine without an accelerator: one logical device per process, and gloo between processes."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CpuDevice("ssrl_cpu_device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # verl passes it to tensor.to()

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"  # a logical resource of Ray: ray.init(num_gpus=1) provides one without hardware

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield


def _accept_one_gloo() -> None:
    """Replace the backend "cpu:gloo,cpu:gloo" by "cpu:gloo" in calls of torch's ``init_process_group``.

    verl 0.9.1 asks for "cpu:gloo,{device}:{backend}", and torch accepts a device only once. verl has no setting for it.
    """
    import torch.distributed as dist

    init = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        init("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


set_platform(CpuPlatform())
_accept_one_gloo()
