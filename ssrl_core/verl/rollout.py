"""A rollout replica on transformers, for machines where vLLM does not run.

One Ray actor holds the model and completes requests in batches; the trainer's worker sends it the weights after every
update.

Floating-point results depend in the last bits on the size and the order of a batch, so batches here do not depend on
when requests arrive. All rollouts that the trainer submits at once form a wave. The server waits for the whole wave,
sorts it, and cuts it into batches of ``max_num_seqs``. It knows that a wave is complete because the trainer's replay
buffer announces the number of prompts, and each request states its prompt's number of rollouts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
import torch
from PIL import Image
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from ..models.completions import complete, load_model
from ..seeding import generator
from .recipe import SAMPLER

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """The place of a rollout in a wave.

    Attributes:
        prompt: id of the prompt, unique in the wave.
        order: sort key of the prompt in the wave; equal in every run of a recipe.
        number: ordinal of the rollout among those of its prompt, from 0.
        rollouts: number of rollouts of the prompt.
    """

    prompt: str
    order: tuple[Any, ...]
    number: int
    rollouts: int


class Wave:
    """Counts the rollouts of a wave, to tell when none is missing."""

    def __init__(self) -> None:
        self._announced: int | None = None
        self._wanted: dict[str, int] = {}  # prompt -> number of its rollouts
        self._present: dict[str, set[int]] = {}  # prompt -> numbers of its rollouts that arrived or were withdrawn
        self._past: set[str] = set()  # prompts of the last wave that began to be completed

    @property
    def complete(self) -> bool:
        """True if all rollouts of all announced prompts have arrived or were withdrawn."""
        return len(self._present) == self._announced and all(
            len(numbers) >= self._wanted[prompt] for prompt, numbers in self._present.items()
        )

    def announce(self, prompts: int) -> None:
        """Set the number of prompts of the wave. The remainder of an earlier, incomplete wave is forgotten."""
        for prompt in self._past & self._present.keys():
            del self._present[prompt], self._wanted[prompt]
        self._announced = prompts

    def add(self, place: Place) -> None:
        """Count a rollout that arrived or was withdrawn. The same rollout counts once."""
        if place.prompt not in self._past or place.prompt in self._present:
            self._present.setdefault(place.prompt, set()).add(place.number)
            self._wanted[place.prompt] = place.rollouts

    def serve(self) -> None:
        """Note that the rollouts that are present are being completed. A complete wave ends here."""
        self._past = set(self._present)
        if self.complete:
            self._announced = None
            self._present.clear()
            self._wanted.clear()


@dataclass(eq=False)
class Request:
    """One completion that a caller waits for.

    Attributes:
        prompt_ids: token ids of the prompt, with one image token per visual token.
        images: the images of the prompt, in order.
        sampling: verl's sampling parameters, equal for all requests of a batch.
        seed: seed of the completion in [0, 2**63).
        place: place of the rollout in its wave; None for a request outside of waves.
    """

    prompt_ids: list[int]
    images: list[Image.Image]
    sampling: dict[str, Any]
    seed: int
    place: Place | None = None
    done: asyncio.Future[TokenOutput] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Collects requests and completes them in batches that do not depend on when the requests arrived.

    Args:
        complete: computes the outputs of a batch, in order. It is called in a thread, for one batch at a time.
        size: maximum number of requests in a batch, at least 1.
        lull: seconds without a new request after which requests outside of waves are completed.
        patience: seconds without a new request after which an incomplete wave is completed as it is.
    """

    def __init__(
        self,
        complete: Callable[[list[Request]], list[TokenOutput]],
        *,
        size: int,
        lull: float = 0.1,
        patience: float = 60.0,
    ) -> None:
        self._complete, self._size, self._lull, self._patience = complete, size, lull, patience
        self._waiting: list[Request] = []
        self._wave = Wave()
        self._news = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> TokenOutput:
        """The output of a request. Raises the exception that its batch raised, if any."""
        self._waiting.append(request)
        if request.place is not None:
            self._wave.add(request.place)
        self._changed()
        return await request.done

    def announce(self, prompts: int) -> None:
        """Set the number of prompts of the wave that the trainer has just submitted."""
        self._wave.announce(prompts)
        self._changed()

    def withdraw(self, place: Place) -> None:
        """Stop waiting for a rollout, which failed before or after it sent its request."""
        self._wave.add(place)
        self._changed()

    def _changed(self) -> None:
        self._news.set()
        if self._wave.complete and all(request.place is None for request in self._waiting):
            self._wave.serve()  # all its rollouts were withdrawn
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        while self._waiting:
            ready = await self._ready()
            taken = set(ready)
            self._waiting = [request for request in self._waiting if request not in taken]
            for batch in self._batches(ready):
                await self._run(batch)

    async def _ready(self) -> list[Request]:
        """The requests to complete next: a whole wave in its canonical order, or requests outside of waves."""
        while not self._wave.complete:
            loose = [request for request in self._waiting if request.place is None]
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), self._lull if loose else self._patience)
            except TimeoutError:
                if loose:
                    return loose
                logger.warning(
                    "A wave of rollouts is incomplete and no request came for %.0f s. The %d requests that are here "
                    "are completed now; this run may differ from another one in the last digits",
                    *(self._patience, len(self._waiting)),
                )
                break
        self._wave.serve()
        wave = [(request.place, request) for request in self._waiting if request.place is not None]
        # Prompts of similar length share a batch, which saves padding.
        wave.sort(key=lambda one: (len(one[1].prompt_ids), one[0].order, one[0].number))
        return [request for _, request in wave]

    def _batches(self, requests: list[Request]) -> list[list[Request]]:
        """The requests in batches with equal sampling parameters."""
        alike: dict[str, list[Request]] = {}
        for request in requests:
            alike.setdefault(repr(sorted(request.sampling.items())), []).append(request)
        return [part[at : at + self._size] for part in alike.values() for at in range(0, len(part), self._size)]

    async def _run(self, batch: list[Request]) -> None:
        try:
            outputs = await asyncio.to_thread(self._complete, batch)
        except Exception as err:
            logger.exception("a batch of %d completions failed", len(batch))
            for request in batch:
                request.done.set_exception(err)
        else:
            for request, output in zip(batch, outputs, strict=True):
                request.done.set_result(output)


def server_name(replica_rank: int) -> str:
    """The name of a replica's Ray actor."""
    return f"ssrl_transformers_server_{replica_rank}"


def forms_waves(config: Any) -> bool:
    """Whether the rollouts of a run form waves.

    They do if one ``TransformersServer`` completes them and the trainer waits for all of them before it goes on, with
    the replay buffer that announces them (``ssrl_core.verl.sampler``).

    Args:
        config: verl's whole configuration.
    """
    trainer = config.trainer
    return bool(
        config.actor_rollout_ref.rollout.name == "transformers"
        and trainer.n_gpus_per_node * trainer.nnodes == 1
        and trainer.v1.trainer_mode == "sync"
        and dict(trainer.v1.sampler.custom_sampler or {}) == SAMPLER
    )


class TransformersServer:
    """The Ray actor. Its methods are those that verl calls on any rollout server, ``announce`` and ``withdraw``."""

    def __init__(self, config: Any, model_config: Any) -> None:
        # The number of threads changes the last bits of results, so a run keeps to one number.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
        self._config = config
        self._model_config: HFModelConfig = omega_conf_to_dataclass(model_config, HFModelConfig)
        self._model = load_model(self._model_config.local_path)
        self._batcher = Batcher(self._complete, size=config.max_num_seqs)
        self._step = self._unseeded = 0

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Image.Image] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """One completion, with the log-probabilities of its tokens under the policy that sampled them.

        Args:
            request_id: unused.
            prompt_ids: token ids of the prompt, with one image token per visual token.
            sampling_params: verl's sampling parameters, and the ``seed`` and ``place`` that ``ssrl_core.verl.agent``
                adds. A request without a seed gets the next one of this server.
            image_data: the images of the prompt, in order.
        """
        sampling = dict(sampling_params)
        seed, place = sampling.pop("seed", None), sampling.pop("place", None)
        if seed is None:
            seed = int(generator(self._config.seed, stream="unseeded", index=self._unseeded).integers(2**63))
            self._unseeded += 1
        return await self._batcher.submit(Request(list(prompt_ids), list(image_data or []), sampling, seed, place))

    async def announce(self, prompts: int) -> None:
        """See ``Batcher.announce``."""
        self._batcher.announce(prompts)

    async def withdraw(self, place: Place) -> None:
        """See ``Batcher.withdraw``."""
        self._batcher.withdraw(place)

    def _complete(self, batch: list[Request]) -> list[TokenOutput]:
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
            seeds=[request.seed for request in batch],
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
        """Replace the weights. Raises RuntimeError if a weight is missing or does not belong to the model."""
        missing, unexpected = self._model.load_state_dict(weights, strict=False)
        lost = set(missing) - set(getattr(self._model, "all_tied_weights_keys", None) or [])
        if lost or unexpected:
            raise RuntimeError(f"weights do not fit the model: missing {sorted(lost)[:5]}, unexpected {unexpected[:5]}")
        if global_steps is not None:
            self._step = global_steps

    async def _nothing(self, *_: Any, **__: Any) -> None:
        """The model stays in memory and keeps no cache between requests, so there is nothing to do."""

    sleep = wake_up = abort_all_requests = resume_generation = clear_kv_cache = _nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = _nothing


class TransformersReplica(RolloutReplica):
    """Starts the actor. Selected with ``rollout.name=transformers``."""

    async def launch_servers(self) -> None:
        actor: Any = ray.remote(TransformersServer)
        self._server_handle = actor.options(
            name=server_name(self.replica_rank),
            # All requests of a wave wait in the actor at once, and `announce` must still get through.
            max_concurrency=100_000,
            num_cpus=0,
        ).remote(self.config, self.model_config)
        self.servers = [self._server_handle]
        self._server_address = server_name(self.replica_rank)
        await self._server_handle.wake_up.remote()  # returns when the model is loaded


class WeightSender(BaseRollout):
    """Sends the weights of the trainer's worker, in which it lives, to the actor."""

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
