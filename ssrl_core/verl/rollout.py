"""A rollout replica on transformers, for machines where vLLM does not run.

One Ray actor holds the model and batches the requests that wait; the trainer's worker sends it new weights after
every update.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from PIL import Image
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from ..completions import complete, load_model

logger = logging.getLogger(__name__)

_LULL_S = 0.1
"""A batch starts when no request has come for this long: the rollouts of a step arrive within a few of these."""


def server_name(replica_rank: int) -> str:
    """The name of a replica's Ray actor."""
    return f"ssrl_transformers_server_{replica_rank}"


@dataclass(eq=False)
class _Request:
    prompt_ids: list[int]
    sampling: dict[str, Any]
    images: list[Image.Image]
    done: asyncio.Future[TokenOutput] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class TransformersServer:
    """The Ray actor. The methods are those that verl calls on any rollout server."""

    def __init__(self, config: Any, model_config: Any) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
        torch.manual_seed(config.get("seed", 0) or 0)
        self._config = config
        self._model_config: HFModelConfig = omega_conf_to_dataclass(model_config, HFModelConfig)
        self._model = load_model(self._model_config.local_path)
        self._waiting: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._step = 0

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Image.Image] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """One completion with the log-probabilities of its tokens under the policy that sampled it."""
        request = _Request(list(prompt_ids), dict(sampling_params), list(image_data or []))
        self._waiting.append(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._serve())
        return await request.done

    async def _serve(self) -> None:
        while self._waiting:
            seen = -1
            while seen != len(self._waiting):
                seen = len(self._waiting)
                await asyncio.sleep(_LULL_S)
            first = self._waiting[0].sampling
            batch = [r for r in self._waiting if r.sampling == first][: self._config.max_num_seqs]
            self._waiting = [r for r in self._waiting if r not in batch]
            try:
                outputs = await asyncio.to_thread(self._complete, batch)
            except Exception as err:
                logger.exception("a batch of %d completions failed", len(batch))
                for request in batch:
                    request.done.set_exception(err)
            else:
                for request, output in zip(batch, outputs, strict=True):
                    request.done.set_result(output)

    def _complete(self, batch: list[_Request]) -> list[TokenOutput]:
        sampling = batch[0].sampling
        top_k = sampling.get("top_k", -1)
        completions = complete(
            self._model,
            self._model_config.processor,
            [request.prompt_ids for request in batch],
            [request.images for request in batch],
            max_new_tokens=sampling.get("max_tokens") or self._config.response_length,
            temperature=sampling.get("temperature", 1.0),
            top_p=sampling.get("top_p", 1.0),
            top_k=top_k if top_k and top_k > 0 else 0,
        )
        return [
            TokenOutput(
                token_ids=c.token_ids,
                log_probs=c.log_probs if sampling.get("logprobs") else None,
                stop_reason="completed",
                extra_fields={"global_steps": self._step},
            )
            for c in completions
        ]

    async def update_weights(self, weights: dict[str, torch.Tensor], global_steps: int | None = None) -> None:
        """Replace the weights. Raises if a weight is missing, or is not of this model."""
        missing, unexpected = self._model.load_state_dict(weights, strict=False)
        lost = set(missing) - set(getattr(self._model, "all_tied_weights_keys", None) or [])
        if lost or unexpected:
            raise RuntimeError(f"weights do not fit the model: missing {sorted(lost)[:5]}, unexpected {unexpected[:5]}")
        if global_steps is not None:
            self._step = global_steps

    async def _nothing(self, *_: Any, **__: Any) -> None:
        """The model stays where it is, and has no cache between requests."""

    sleep = wake_up = abort_all_requests = resume_generation = clear_kv_cache = _nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):
    """Starts the actor; ``rollout.name=transformers``."""

    async def launch_servers(self) -> None:
        actor: Any = ray.remote(TransformersServer)
        self._server_handle = actor.options(
            name=server_name(self.replica_rank), max_concurrency=self.max_concurrency, num_cpus=0
        ).remote(self.config, self.model_config)
        self.servers = [self._server_handle]
        self._server_address = server_name(self.replica_rank)
        await self._server_handle.wake_up.remote()  # returns when the model is loaded


class WeightSender(BaseRollout):
    """Lives in the trainer's worker and sends its weights to the actor."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self._server = server_name(int(os.environ["RANK"]) if replica_rank == -1 else replica_rank)

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None] | AsyncGenerator[tuple[str, torch.Tensor], None],
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        state = {name: tensor.detach().cpu().float().clone() for name, tensor in weights}  # type: ignore[union-attr]
        await ray.get_actor(self._server).update_weights.remote(state, global_steps)
