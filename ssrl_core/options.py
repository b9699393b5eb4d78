"""The base of a task's options; not in ``types``, because pydantic takes long to import."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of a task's options model. Unknown keys are errors; instances are frozen.

    A task defines a subclass in which every field has a type and a default, and names it in its ``TaskInfo``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
