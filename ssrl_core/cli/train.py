"""``ssrl train``: reinforcement learning on a mix, with verl's PPO/GRPO trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import yaml

if TYPE_CHECKING:
    from ..verl.recipe import Stage

Recipe = Annotated[Path, typer.Argument(help="A recipe: YAML in verl's terms plus the key 'mix'.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings of verl in Hydra's grammar, e.g. trainer.total_training_steps=10.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show verl's own output instead of a line per step; its whole configuration."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would run, and stop.")]


Device = Annotated[
    Literal["cuda", "cpu"] | None, typer.Option(help="The machine that will run it, for a dry run on another one.")
]


def stage_command(stage: Stage) -> Callable[..., None]:
    """The command of a training stage: it checks the recipe and runs it, or prints what would run.

    It exits with verl's code if verl fails.
    """

    def command(
        recipe: Recipe,
        overrides: Overrides = None,
        verbose: Verbose = False,
        dry_run: DryRun = False,
        device: Device = None,
    ) -> None:
        from ..verl.launch import prepare, run
        from ..verl.progress import StepLine

        launch = prepare(stage, recipe, overrides or (), device=device)
        if dry_run:
            from ..verl.summary import summary

            if verbose:
                typer.echo(yaml.safe_dump(dict(launch.config), sort_keys=False))
                typer.echo(f"# {launch.folder}/config.yaml will hold this. Then this runs:\n# {launch.command()}")
                return
            typer.echo(f"{recipe}: checked, nothing written. -v prints verl's whole configuration and command\n")
            typer.echo(summary(stage, launch))
            return
        typer.echo(f"{stage}: {launch.folder}  (verl's own output: log.txt)")
        code, lost, why, stopped = run(launch, on_step=StepLine(launch.steps), echo=verbose)
        if lost:
            sys.stderr.write(
                f"ssrl: the rollouts of {lost} prompt(s) failed; look for 'Error in _run_prompt' in log.txt\n"
            )
        if stopped:
            sys.stderr.write(f"ssrl: {stopped}\n")
            raise typer.Exit(code)
        if code:
            log = launch.folder / "log.txt"
            if not verbose:
                sys.stderr.write(
                    "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-30:])
                )
            sys.stderr.write(f"ssrl: verl ended with code {code}; its whole output is in {log}\n")
            if why:
                sys.stderr.write(f"ssrl: the first error in it: {why}\n")
            raise typer.Exit(code if code > 0 else 1)

    return command


command = stage_command("grpo")
