"""The options of commands that query a model, and the model that they name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..evaluate import EvaluationError, Transformers
from ..evaluate.endpoint import Endpoint
from ..evaluate.models import Model
from ..evaluate.serving import Served, command_for
from ..models.tokens import Prompted

ModelPath = Annotated[str | None, typer.Option(help="A model to run here: a folder, or a name on the hub.")]
Engine = Annotated[
    Literal["transformers", "vllm"], typer.Option(help="What runs the model; vllm starts a server of its own.")
]
EndpointURL = Annotated[str | None, typer.Option(help="URL of a server, e.g. http://localhost:8000/v1.")]
ModelName = Annotated[str | None, typer.Option(help="Name of the model on the server.")]
Temperature = Annotated[float, typer.Option(min=0, help="Sampling temperature; 0: the most likely token.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum length of a completion in tokens.")]
SamplingSeed = Annotated[int, typer.Option(min=0, help="Seed of the sampling of completions.")]
Batch = Annotated[int, typer.Option(min=1, help="transformers: batch size.")]
Concurrency = Annotated[int, typer.Option(min=1, help="vllm, endpoint: number of concurrent requests.")]
Retries = Annotated[int, typer.Option(min=0, help="endpoint: maximum number of retries of a request.")]
Timeout = Annotated[float, typer.Option(min=1, help="endpoint: time limit of a request in seconds.")]
Body = Annotated[str, typer.Option(help="endpoint: extra JSON merged into each request body.")]
Template = Annotated[str, typer.Option(help="transformers, vllm: arguments of the model's chat template, as JSON.")]


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option gives. Raises EvaluationError."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as err:
        raise EvaluationError(f"{option} {text!r}: not a JSON object ({err})") from err


@contextmanager
def the_model(
    model: str | None,
    engine: str,
    endpoint: str | None,
    name: str | None,
    *,
    log: Path,
    batch: int,
    concurrency: int,
    retries: int,
    timeout: float,
    max_tokens: int,
    body: dict[str, Any],
    template: dict[str, Any],
    examples: Callable[[], Sequence[Prompted]],
    room: float = 1.5,
    video: bool = False,
) -> Iterator[Model]:
    """The model that the options name; its server ends with the block.

    Args:
        model, engine, ..., template, video: see the options.
        log: file for the output of a server that is started.
        examples: of each kind of prompts, those with the most images included.
        room: see ``serving.command_for``.

    Raises:
        EvaluationError: the options do not go together, or the model cannot be used.
    """
    if template and endpoint:
        raise EvaluationError("--template: a server has its own; try --body '{\"chat_template_kwargs\": {...}}'")
    match model, endpoint, name, engine:
        case str(), None, None, "transformers":
            yield Transformers(model, batch=batch, template=template)
        case str(), None, None, "vllm":
            command = command_for(examples(), model, max_tokens=max_tokens, room=room)
            with Served(
                model, log=log, command=command, concurrency=concurrency, template=template, video=video
            ) as served:
                yield served
        case None, str(), str(), "transformers":
            yield Endpoint(
                endpoint, name, concurrency=concurrency, retries=retries, timeout=timeout, body=body, video=video
            )
        case _:
            raise EvaluationError(
                "which model? Either --model PATH, with --engine transformers or vllm, or --endpoint URL --name MODEL"
            )
