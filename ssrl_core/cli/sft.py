"""``ssrl sft``: cold start with verl's SFT trainer."""

from __future__ import annotations

from .train import Device, DryRun, Overrides, Recipe, Verbose, run_stage


def command(
    recipe: Recipe,
    overrides: Overrides = None,
    verbose: Verbose = False,
    dry_run: DryRun = False,
    device: Device = None,
) -> None:
    run_stage("sft", recipe, overrides, verbose=verbose, dry_run=dry_run, device=device)
