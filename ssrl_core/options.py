"""The base of a task's options; apart from the other types, since pydantic takes longer to import than all of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of a task's options model. Unknown keys are errors; instances are frozen.

    A task subclasses it, gives every field a type and a default, and names the subclass in its ``TaskInfo``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
