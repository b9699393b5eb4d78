"""The model that an evaluation queries, its sampling settings, and a model that transformers runs in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..form import opens_thinking
from ..models.completions import complete
from ..models.loading import load_model, load_processor, written
from ..models.tokens import Prompted, token_ids
from ..seeding import generator
from .folder import EvaluationError

Numbered = tuple[int, Prompted]
"""The index of an example in the mix or of a question in the benchmark, and the example or question."""

_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        temperature: sampling temperature, at least 0. At 0 the most likely token is selected, so an evaluation repeats
            and two models differ only by their weights. Training samples at 1.
        max_tokens: maximum length of a completion in tokens.
        seed: seed of the evaluation, at least 0. It has no effect at temperature 0.
    """

    temperature: float = 0.0
    max_tokens: int = 2048
    seed: int = 0

    def seed_of(self, index: int) -> int:
        """The seed of the completion of the sample at an index of the mix, in [0, 2**31).

        It depends on nothing else, so a completion depends neither on the batch size nor on a resumption.
        """
        return int(generator(self.seed, stream="evaluation", index=index).integers(2**31))


@dataclass(frozen=True, slots=True)
class Written:
    """A completion.

    Attributes:
        text: as the model wrote it.
        cut: True if it was cut at the maximum length.
        opened: whether the chat template ended the prompt with ``<think>``; None if that is not known.
    """

    text: str
    cut: bool
    opened: bool | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no completion.

    Attributes:
        reason: a sentence.
        again: True if the same request may succeed at once.
    """

    reason: str
    again: bool = False

    def __str__(self) -> str:
        return self.reason


class Model(Protocol):
    """Anything that completes prompts."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON values on which the answers depend. An evaluation is only resumed with equal facts."""

    @property
    def written(self) -> str | None:
        """What the chat template writes of a completion; see ``models.loading.written``. None if it is not known."""

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with its outcome, in any order. Raises EvaluationError if further requests are pointless."""


class Transformers:
    """A model that transformers runs in this process, on a GPU if there is one and else on the CPU.

    Args:
        path: a local folder, or a name on the Hugging Face hub.
        batch: batch size; it may flip near-tied tokens.
        template: arguments of the chat template, e.g. ``{"enable_thinking": False}``.

    Raises:
        EvaluationError, ModelError: there is no such model, or its processor cannot be loaded.
    """

    def __init__(self, path: str, *, batch: int = 32, template: Mapping[str, Any] | None = None) -> None:
        import torch

        self._path, self._batch, self._template = path, batch, dict(template or {})
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.facts: dict[str, Any] = {"engine": "transformers", "model": path, "version": version(path)}
        self.facts |= {"device": self._device} | ({"template": self._template} if self._template else {})
        self._processor = load_processor(path)
        self.written = written(self._processor, name=path, settings=self._template)

    @cached_property
    def _model(self) -> Any:
        return load_model(self._path, device=self._device)

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with its completion, in order."""
        model, processor = self._model, self._processor
        waiting = iter(examples)
        while group := list(islice(waiting, self._batch)):
            completions = complete(
                model,
                processor,
                [token_ids(processor, example, settings=self._template) for _, example in group],
                [list(example.images) for _, example in group],
                max_new_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seeds=[sampling.seed_of(index) for index, _ in group],
                log_probs=False,
            )
            for numbered, completion in zip(group, completions, strict=True):
                text = processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
                yield numbered, Written(text, completion.cut, opened=opens_thinking(self.written))


def version(path: str) -> str:
    """The version of a model: a digest of the files in its folder, or its commit on the hub.

    Raises EvaluationError if there is no such model.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        from transformers import AutoConfig

        try:
            return str(getattr(AutoConfig.from_pretrained(path), "_commit_hash", None))
        except (OSError, ValueError) as err:
            raise EvaluationError(
                f"model {path!r} is neither a folder with a config.json nor a reachable name on the Hugging Face hub. "
                f"A checkpoint of verl keeps the model in actor/huggingface. ({str(err).splitlines()[0]})"
            ) from err
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        with open(file, "rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
