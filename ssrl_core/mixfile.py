"""What a mix file may say, and its mistakes in the words of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .answers import FORMAT_WEIGHT, INSTRUCTION
from .errors import MixError, did_you_mean
from .include import Composed, compose

Weight = Annotated[float, Field(ge=0, le=1e9)]
LevelName = Annotated[str, BeforeValidator(lambda level: str(level) if isinstance(level, int) else level)]
Levels = LevelName | dict[LevelName, Annotated[float, Field(gt=0, le=1e9)]]


def _without_image_mark(text: str) -> str:
    if "<image>" in text:
        raise ValueError("'<image>' marks an image of a sample and cannot stand in the instruction")
    return text


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeldoutConfig(_Model):
    """The held-out split: ``samples`` puzzles, made from the ``fraction`` of images that training never sees."""

    samples: int = Field(default=200, gt=0)
    fraction: float = Field(default=0.1, gt=0, lt=1)


class TaskConfig(_Model):
    """One task of a mix.

    Attributes:
        weight: share of the mix, relative to the other weights; 0 for a task that only stages of the schedule use.
        level: a level, or level -> share; the task's first level where absent.
        options: for the task's own options model.
        source, seed: the task's own; those of the mix where absent.
    """

    weight: Weight = 1.0
    level: Levels | None = None
    options: dict[str, Any] = {}
    source: str | None = None
    seed: int | None = Field(default=None, ge=0)


class StageTaskConfig(_Model):
    """What is different about a task during a stage: its ``weight`` (0: it pauses), its ``level``."""

    weight: Weight | None = None
    level: Levels | None = None


class StageConfig(_Model):
    """A stage of the schedule: how the mix differs from what it says elsewhere, up to a point.

    Attributes:
        until: where the stage ends, as a share of the mix's samples; or
        until_sample: as a number of samples.
        level: of every task that ``tasks`` gives none.
        tasks: name -> what is different about it.
    """

    until: float | None = Field(default=None, gt=0, le=1)
    until_sample: int | None = Field(default=None, gt=0)
    level: Levels | None = None
    tasks: dict[str, StageTaskConfig] = {}


class MixConfig(_Model):
    r"""What a mix file says, besides ``include``.

    Attributes:
        tasks: name -> task.
        source: URI of the image source, e.g. ``folder:photos``; a relative path starts at the file that wrote it.
        seed: of everything random.
        samples: length of an epoch.
        size: pixels of the longer side to which images are brought before a task sees them.
        heldout: the held-out split.
        schedule: the stages through which training comes to the mix as it stands; see ``ssrl_core.schedule``.
        wrappers: names of wrappers around every task, innermost first.
        allowed_distributions: names or patterns, as in ``SSRL_ALLOWED_DISTRIBUTIONS``, which both must allow; plugins
            of other distributions are refused before they are imported. No restriction where absent.
        instruction: how to present the answer; appended to every prompt.
        format_weight: share of the reward for the form of the completion.
    """

    tasks: dict[str, TaskConfig | None] = Field(min_length=1)
    source: str = "synthetic:"
    seed: int = Field(default=0, ge=0)
    samples: int = Field(default=10_000, gt=0, le=2**48)
    size: int = Field(default=448, ge=64, le=4096)
    heldout: HeldoutConfig = HeldoutConfig()
    schedule: list[StageConfig] = Field(default=[], max_length=100)
    wrappers: list[str] = []
    allowed_distributions: list[str] | None = None
    instruction: Annotated[str, AfterValidator(_without_image_mark)] = INSTRUCTION
    format_weight: float = Field(default=FORMAT_WEIGHT, ge=0, lt=1)


Where = Callable[..., str]
"""From the keys on the way to a value to the text ``FILE: tasks.flipped_patch.level``."""


def read_mix(path: str | Path) -> tuple[MixConfig, Composed]:
    """What a mix file says with everything that it includes, validated, and where it says so. Raises MixError."""
    composed = compose(path)
    try:
        return MixConfig(**composed.content), composed
    except ValidationError as err:
        raise MixError(explain(err, composed.where, MixConfig)) from err


def explain(err: ValidationError, where: Where, model: type[BaseModel], *, below: tuple[str, ...] = ()) -> str:
    """A validation error in the words of the file: file, key, value, reason, remedy.

    Args:
        err: of pydantic.
        where: names the file of a key.
        model: that did not validate.
        below: the keys under which its content stands in the file.
    """
    lines = []
    for problem in err.errors():
        # Pydantic names the branch of a union in the path; a reader of the file knows no branches.
        keys = tuple(key for key in problem["loc"] if not _is_branch(key))
        # A number is a place in the list of stages, or a level's name that YAML read as a number.
        keys = tuple(key if index == 1 and keys[0] == "schedule" else str(key) for index, key in enumerate(keys))
        path = where(*below, *keys)
        if problem["type"] == "extra_forbidden":
            known = _fields(model, keys[:-1])
            lines.append(f"{path}: there is no such key.{did_you_mean(str(keys[-1]), known)} Known: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            lines.append(f"{path}: {problem['input']!r:.80}: {problem['msg']}")
    return "\n".join(dict.fromkeys(lines))


def _is_branch(key: object) -> bool:
    return isinstance(key, str) and (key.startswith(("function-", "dict[", "constrained-")) or key in ("str", "[key]"))


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
