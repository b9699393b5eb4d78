"""What a mix file may say, and error messages that name its files and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ..errors import MixError, did_you_mean
from ..form import FORMAT_WEIGHT, INSTRUCTIONS, OPENING, Thinking
from .include import Composed, compose

Weight = Annotated[float, Field(ge=0, le=1e9)]
LevelName = Annotated[str, BeforeValidator(lambda level: str(level) if type(level) is int else level)]
Levels = LevelName | dict[LevelName, Annotated[float, Field(gt=0, le=1e9)]]


def _instruction(text: str, given: ValidationInfo) -> str:
    if "<image>" in text:
        raise ValueError("'<image>' marks an image of a sample and cannot stand in the instruction")
    if given.data.get("thinking") == "none" and OPENING in text:
        raise ValueError("asks for thinking, but the mix says thinking: none, under which thinking earns nothing")
    return text


def _not_emptied(allowed: object) -> object:
    if allowed is None:  # the default allows all, but who leaves nothing below the key does not mean that
        raise ValueError("write [] to allow no distribution, or remove the key to allow all")
    return allowed


def _given(task: object) -> object:
    """The keys of a task; a mix may name a task without keys."""
    return {} if task is None else task


class _Model(BaseModel):
    # Strict, because pydantic would take true for the number 1, and 81.000 for the whole number 81.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HeldoutConfig(_Model):
    """The images that training never draws, and the samples made from them.

    Attributes:
        samples: number of samples for evaluation, and as many others for validation during training.
        fraction: of the images of each source.
    """

    samples: int = Field(default=200, gt=0)
    fraction: float = Field(default=0.1, gt=0, lt=1)


class TaskConfig(_Model):
    """One task of a mix.

    Attributes:
        weight: share of the mix, relative to the other weights; 0 for a task that only stages of the schedule use.
        level: a level, or level -> share; the task's first level if None.
        options: input of the task's options model.
        source, seed: of this task; those of the mix if None.
        rows: file or folder of ready-made questions, with the options of the source ``rows:``. The task is then not an
            installed one; the mix gives it its name.
        scorer: name of the scorer of their answers; ``strict`` by default.
    """

    weight: Weight = 1.0
    level: Levels | None = None
    options: dict[str, Any] = {}
    source: str | None = None
    seed: int | None = Field(default=None, ge=0)
    rows: str | None = None
    scorer: str | None = None

    @model_validator(mode="after")
    def _rows_alone(self) -> TaskConfig:
        if self.rows is not None and self.source is not None:
            raise ValueError("rows and source exclude each other: rows bring their own images")
        if self.rows is None and self.scorer is not None:
            raise ValueError("scorer is a key of rows: an installed task verifies its answers itself")
        return self


class StageTaskConfig(_Model):
    """What a stage changes about a task: its ``weight`` (0: the task pauses), its ``level``."""

    weight: Weight | None = None
    level: Levels | None = None


class StageConfig(_Model):
    """A stage of the schedule: how the mix differs from its other keys, up to a point of the epoch.

    Attributes:
        until: end of the stage as a share of the mix's samples; or
        until_sample: end of the stage as a number of samples.
        level: of every task that ``tasks`` gives no level.
        tasks: name -> what the stage changes about the task.
    """

    until: float | None = Field(default=None, gt=0, le=1)
    until_sample: int | None = Field(default=None, gt=0)
    level: Levels | None = None
    tasks: dict[str, StageTaskConfig] = {}


class MixConfig(_Model):
    r"""The keys of a mix file, besides ``include``.

    Attributes:
        tasks: name -> task.
        source: URI of the image source, e.g. ``folder:photos``; a relative path starts at the file that wrote it.
        seed: of every random decision.
        samples: length of an epoch.
        size: length in pixels of the longer side to which images are resized before a task sees them.
        heldout: the images that training never draws.
        schedule: stages of a curriculum; after the last stage the mix applies as written. See ``schedule``.
        wrappers: names of wrappers around every task, innermost first.
        allowed_distributions: names or patterns, as in ``SSRL_ALLOWED_DISTRIBUTIONS``. A distribution must be allowed
            by both; plugins of other distributions are refused before they are imported. None allows all.
        thinking: whether a completion must think (``required``), may think (``optional``), or must not (``none``).
        instruction: how to present the answer; appended to every prompt. The default depends on ``thinking``.
        format_weight: share of the reward for the format of the completion.
    """

    tasks: dict[str, Annotated[TaskConfig, BeforeValidator(_given)]] = Field(min_length=1)
    source: str = "synthetic:"
    seed: int = Field(default=0, ge=0)
    samples: int = Field(default=10_000, gt=0, le=2**48)
    size: int = Field(default=448, ge=64, le=4096)
    heldout: HeldoutConfig = HeldoutConfig()
    schedule: list[StageConfig] = Field(default=[], max_length=100)
    wrappers: list[str] = []
    allowed_distributions: Annotated[list[str] | None, BeforeValidator(_not_emptied)] = None
    thinking: Thinking = "required"
    instruction: Annotated[str, AfterValidator(_instruction)] = Field(
        default_factory=lambda content: INSTRUCTIONS[content.get("thinking", "required")]
    )
    format_weight: float = Field(default=FORMAT_WEIGHT, ge=0, lt=1)

    def source_of(self, task: str) -> str:
        """URI of the images of a task."""
        own = self.tasks[task]
        return own.source or self.source if own.rows is None else f"rows:{own.rows}"

    @property
    def sources(self) -> list[str]:
        """URIs of all image sources, sorted."""
        return sorted({self.source_of(task) for task in self.tasks})


Where = Callable[..., str]
"""Takes the keys that lead to a value; returns ``FILE: tasks.flipped_patch.level``."""


def read_mix(path: str | Path, *, thinking: Thinking | None = None) -> tuple[MixConfig, Composed]:
    """The validated content of a mix file and of the files that it includes, and which file wrote which key.

    Args:
        path: of the mix file.
        thinking: replaces the mode of the file unless None.

    Raises:
        MixError: a file cannot be read, or its content is invalid; or ``thinking`` would leave an instruction that the
            file wrote for another mode.
    """
    composed = compose(path)
    if thinking not in (None, composed.content.get("thinking", "required")):
        if "instruction" in composed.content:
            raise MixError(
                f"{composed.where('instruction')}: written for another mode than {thinking!r}. Write a mix that "
                "includes this one and sets both thinking and instruction"
            )
        composed = replace(composed, content={**composed.content, "thinking": thinking})
    try:
        return MixConfig(**composed.content), composed
    except ValidationError as err:
        raise MixError(explain(err, composed.where, MixConfig, content=composed.content)) from err


def explain(
    err: ValidationError,
    where: Where,
    model: type[BaseModel],
    *,
    content: Mapping[str, Any],
    below: tuple[str, ...] = (),
) -> str:
    """A validation error as text: file, key, value and reason, one line for each problem.

    Args:
        err: raised by pydantic.
        where: names the file of a key.
        model: the model that did not validate.
        content: the input of the model.
        below: the keys that lead to ``content`` in the file.
    """
    lines = []
    for problem in err.errors():
        if problem["type"] == "default_factory_not_called":  # it only follows from another problem
            continue
        keys = _keys_in(content, problem["loc"], missing=problem["type"] == "missing")
        path = where(*below, *keys)
        if problem["type"] == "extra_forbidden":
            known = _fields(model, keys[:-1])
            lines.append(f"{path}: there is no such key.{did_you_mean(str(keys[-1]), known)} Known: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            lines.append(f"{path}: {problem['input']!r:.80}: {problem['msg']}")
    return "\n".join(dict.fromkeys(lines))


def _keys_in(content: Any, location: tuple[str | int, ...], *, missing: bool) -> tuple[str | int, ...]:
    """The parts of pydantic's location that are keys of the content. The others name branches of a union.

    Numbers stay numbers only as positions in a list; YAML also reads names of levels as numbers.
    """
    keys: list[str | int] = []
    for position, key in enumerate(location):
        if isinstance(content, list) and isinstance(key, int):
            keys.append(key)
            content = content[key] if key < len(content) else None
        elif isinstance(content, Mapping) and key in content:
            keys.append(str(key))
            content = content[key]
        elif missing and position == len(location) - 1:
            keys.append(str(key))
    return tuple(keys)


def _fields(model: type[BaseModel], keys: tuple[str | int, ...]) -> list[str]:
    if model is MixConfig:
        match keys:
            case ():
                return ["include", *MixConfig.model_fields]
            case ("heldout",):
                model = HeldoutConfig
            case ("tasks", _):
                model = TaskConfig
            case ("schedule", _):
                model = StageConfig
            case ("schedule", _, "tasks", _):
                model = StageTaskConfig
    return list(model.model_fields)
