"""What an evaluation asks: a model, with settings for its sampling; and the one that transformers runs here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..bound import Example
from ..completions import complete, load_model, token_ids
from ..seeding import generator
from .folder import EvaluationError

Numbered = tuple[int, Example]
"""An example and its index in the mix."""

_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        temperature: 0 takes the likeliest token each time: the same answers every time, so that two models differ by
            what they are and not by luck. Training draws at 1.
        max_tokens: longest completion.
        seed: of the draws; without effect at temperature 0.
    """

    temperature: float = 0.0
    max_tokens: int = 2048
    seed: int = 0

    def seed_of(self, index: int) -> int:
        """The seed of the sample at an index of the mix, in [0, 2**31)."""
        return int(generator(self.seed, stream="evaluation", index=index).integers(2**31))


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote; whether it was cut off at the longest completion."""

    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no completion."""

    reason: str


class Model(Protocol):
    """Whatever completes prompts."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its answers depend on, in plain JSON values. An evaluation is not continued with others."""

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with what came of it, in any order. Raises EvaluationError where it makes no sense to go on."""


class Transformers:
    """A model that transformers runs in this process: on a GPU where there is one, else on the CPU.

    Args:
        path: a folder, or a name on the hub.
        batch: prompts completed together. Another number may change what is as likely as its alternative.
    """

    def __init__(self, path: str, *, batch: int = 32) -> None:
        import torch

        self._path, self._batch = path, batch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.facts = {"engine": "transformers", "model": path, "version": version(path), "device": self._device}

    def answer(self, examples: Iterable[Numbered], sampling: Sampling) -> Iterator[tuple[Numbered, Written | Failed]]:
        """Each example with its completion, in order."""
        import torch
        from transformers import AutoProcessor

        model, processor = load_model(self._path, device=self._device), AutoProcessor.from_pretrained(self._path)
        waiting = iter(examples)
        while group := list(islice(waiting, self._batch)):
            with torch.random.fork_rng():
                torch.manual_seed(sampling.seed_of(group[0][0]))
                completions = complete(
                    model,
                    processor,
                    [token_ids(processor, example) for _, example in group],
                    [list(example.sample.images) for _, example in group],
                    max_new_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    log_probs=False,
                )
            for numbered, completion in zip(group, completions, strict=True):
                text = processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
                yield numbered, Written(text, completion.cut)


def version(path: str) -> str:
    """What tells a model from another one of the same name: a digest of its files, or its commit on the hub.

    Raises EvaluationError where there is no such model.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        from transformers import AutoConfig

        try:
            return str(getattr(AutoConfig.from_pretrained(path), "_commit_hash", None))
        except (OSError, ValueError) as err:
            raise EvaluationError(
                f"model {path!r} is neither a folder with a config.json nor a name on the hub that can be reached. "
                f"A checkpoint of verl has the model in actor/huggingface. ({str(err).splitlines()[0]})"
            ) from err
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        with open(file, "rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
