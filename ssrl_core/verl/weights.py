"""New weights of the policy for verl's vLLM server: on a socket of this run alone, and never waiting without end.

verl 0.9.1 names the socket after Ray's job id. Every Ray cluster that is started on its own gives its first job the
same id, so two runs on one machine share the socket, and one may load the weights of the other. verl also waits without
a limit for an answer of the other side, so a failed update hangs.

verl imports both classes by name: ``Sender`` in the trainer's worker (registered in ``workers``), ``Receiver`` in
vLLM's worker process (``worker_extension_cls`` in ``recipe``).
"""

from __future__ import annotations

import os
import time
from typing import Any

import ray
import torch
import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter
from vllm.platforms import current_platform

from . import vllm_cpu
from .launch import RUN

SILENCE = 90.0
"""Seconds without an answer after which an update fails. vLLM answers after each bucket of weights."""


def socket_of_run(address: str) -> str:
    """verl's address of the socket with the name of the run in it; the same address if ``RUN`` is not set."""
    folder, _, name = address.rpartition("/")
    return f"{folder}/{run}-{name}" if (run := os.environ.get(RUN)) else address


class Sender(ServerAdapter):
    """verl's connection from the trainer's worker to its vLLM server. Selected with ``rollout.name=vllm``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zmq_handle = socket_of_run(self.zmq_handle)

    @torch.no_grad()
    async def update_weights(
        self, weights: Any, global_steps: Any = None, wire_format: str = "named_tensors", **kwargs: Any
    ) -> None:
        """Send all weights, as verl does. ``weights`` is a generator, perhaps asynchronous, of names and tensors.

        Raises:
            TimeoutError: vLLM gave no answer for ``SILENCE`` seconds.
            Exception: what vLLM raised while it took the weights.
        """
        if wire_format != "named_tensors":
            return await super().update_weights(weights, global_steps, wire_format, **kwargs)
        received = await self._execute_method(
            "update_weights_from_ipc", non_block=True, kwargs={**kwargs, "use_shm": self.use_shm}
        )
        bucket = self.config.checkpoint_engine.update_weights_bucket_megabytes
        await _Sending(self.zmq_handle, bucket, self.use_shm, received).async_send_weights(weights)
        if received is not None:
            await received
        if self._has_server:
            await self.server_handle.clear_kv_cache.remote()
            if global_steps is not None:
                await self.server_handle.set_global_steps.remote(global_steps)


class _Sending(BucketedWeightSender):
    """verl's sender, whose waiting ends when vLLM fails or is silent."""

    def __init__(self, address: str, bucket_megabytes: int, shared_memory: bool, received: Any) -> None:
        super().__init__(address, bucket_megabytes, shared_memory)
        self._received = received

    socket: Any

    def _init_socket(self) -> None:
        super()._init_socket()
        self.socket.setsockopt(zmq.LINGER, 0)  # or the process would not end after a failure
        self.socket = _Watched(self.socket, self._received)


class _Watched:
    """A socket that waits for an answer only as long as the other side can give one.

    Args:
        socket: connected to vLLM's worker.
        received: Ray's reference of vLLM's side of the update, which has a result as soon as it ends or fails; None on
            ranks that do not call vLLM.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Any) -> None:
        self._socket, self._received = socket, received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self) -> bytes:
        deadline = time.monotonic() + SILENCE
        while not self._socket.poll(1000):
            if self._received is not None and ray.wait([self._received], timeout=0)[0]:
                ray.get(self._received)  # raises what vLLM raised
                raise RuntimeError("vLLM ended a weight update before it had taken all weights")
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"a weight update failed: vLLM's worker has given no answer for {SILENCE:.0f} s. The log of the "
                    "run has its last messages"
                )
        return self._socket.recv()


class Receiver(vLLMColocateWorkerExtension):
    """verl's part of vLLM's worker."""

    def __new__(cls, **kwargs: Any) -> Receiver:
        if current_platform.is_cpu():
            vllm_cpu.keep_weights()
        worker: Receiver = super().__new__(cls, **kwargs)
        return worker

    def _get_zmq_handle(self) -> str:
        return socket_of_run(super()._get_zmq_handle())
