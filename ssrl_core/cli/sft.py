"""``ssrl sft``: cold start with verl's SFT trainer."""

from __future__ import annotations

from .train import stage_command

command = stage_command("sft")
