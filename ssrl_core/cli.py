"""The command ``ssrl``. Heavy imports stand inside the commands: ``ssrl list`` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import SSRLError
from .plugins import InstalledPlugin, installed

if TYPE_CHECKING:
    from .plugins import Task
    from .verl.recipe import Stage

app = typer.Typer(
    help="Self-supervised spatial RL: pretext tasks as plugins, trained by verl.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings of verl in Hydra's grammar, e.g. trainer.total_training_steps=10.")
]
_RecipeFile = Annotated[Path, typer.Argument(help="A recipe: YAML in verl's terms plus the key 'mix'.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show verl's own output instead of a line a step.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what verl would get, and stop.")]


def main() -> None:
    """Run the command line. A mistake of the user ends with a message and code 2, never with a traceback."""
    try:
        app()
    except SSRLError as err:
        sys.stderr.write(f"ssrl: {err}\n")
        raise SystemExit(2) from err


@app.command("list")
def list_tasks(as_json: _AsJson = False) -> None:
    """List the installed tasks. Reads metadata only: nothing is imported."""
    found = installed()
    rows = [_listed(plugin, alone=len(plugins) == 1) for plugins in found.values() for plugin in plugins]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No tasks are installed. For example: pip install ssrl-plugin-shuffled-patches")
        return
    columns = ("task", "distribution", "version", "summary")
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns[:-1]]
    for row in [{column: column for column in columns}, *rows]:
        cells = [row[column].ljust(width) for column, width in zip(columns, [*widths, 0], strict=True)]
        typer.echo("  ".join(cells).rstrip())


def _listed(plugin: InstalledPlugin, *, alone: bool) -> dict[str, str]:
    return {
        "task": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "summary": plugin.summary if alone else "CLAIMED TWICE: uninstall all distributions of this task but one",
    }


@app.command()
def show(task: Annotated[str, typer.Argument(help="Name of a task.")], as_json: _AsJson = False) -> None:
    """Show what a task asks: levels, options, a sample prompt and its answer."""
    from .plugins import load_task

    loaded = load_task(task)
    facts = _facts(loaded)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{task}: {facts['summary']}")
    typer.echo(f"  from {loaded.plugin.distribution} {loaded.plugin.version}, task version {facts['version']}")
    typer.echo(f"  needs depth: {'yes' if facts['needs_depth'] else 'no'}")
    typer.echo("levels:")
    for name, level in facts["levels"].items():
        typer.echo(f"  {name:8} chance {level['chance']:.4f}  {level['summary']}")
    typer.echo("options:" + ("" if facts["options"] else " none"))
    for name, option in facts["options"].items():
        typer.echo(f"  {name}: {option['type']} = {option['default']!r}  {option['description']}".rstrip())
    typer.echo("a sample prompt:")
    typer.echo("  | " + facts["prompt"].replace("\n", "\n  | "))
    typer.echo(f"its answer: {facts['truth']}")


def _facts(task: Task) -> dict[str, Any]:
    from .mix import Mix, MixConfig, TaskConfig

    example = Mix(Path("show"), MixConfig(tasks={task.name: TaskConfig()}), split="train")[0]
    info = task.info
    return {
        "task": task.name,
        "distribution": task.plugin.distribution,
        "distribution_version": task.plugin.version,
        "version": info.version,
        "summary": info.summary,
        "needs_depth": info.needs_depth,
        "levels": {name: {"summary": lv.summary, "chance": lv.chance} for name, lv in info.levels.items()},
        "options": {
            name: {
                "type": getattr(field.annotation, "__name__", str(field.annotation)),
                "default": field.default,
                "description": field.description or "",
            }
            for name, field in task.options_model.model_fields.items()
        },
        "prompt": example.prompt,
        "truth": example.sample.truth,
    }


@app.command()
def preview(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    samples: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    output: Annotated[Path, typer.Option("-o", help="The HTML file to write.")] = Path("preview.html"),
    heldout: Annotated[bool, typer.Option("--heldout", help="Show the held-out split.")] = False,
) -> None:
    """Write samples of a mix, with prompts, truths and recipes, into one self-contained HTML page."""
    from rich.progress import track

    from .gallery import write_gallery
    from .mix import load_mix

    loaded = load_mix(mix, split="heldout" if heldout else "train")
    hidden = not sys.stderr.isatty()
    indices = track(range(min(samples, len(loaded))), description="samples", transient=True, disable=hidden)
    examples = (loaded[index] for index in indices)
    count = write_gallery(examples, output, title=f"{mix.name}, {loaded.split}", rejections=loaded.rejections)
    typer.echo(f"{count} samples -> {output}")
    for task, reasons in loaded.rejections.items():
        if reasons:
            typer.echo(f"  {task}: rejected " + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common()))


@app.command()
def tiny_model(
    mix: Annotated[Path, typer.Argument(help="A mix file; the tokenizer is trained on its prompts.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the model.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Build a tiny, untrained model of the Qwen2.5-VL architecture for trying things out on a CPU."""
    from .mix import load_mix
    from .tiny import build_tiny_model

    parameters = build_tiny_model(load_mix(mix), folder, seed=seed)
    typer.echo(f"{parameters / 1e6:.2f} M parameters -> {folder}")


@app.command()
def sft(recipe: _RecipeFile, overrides: _Overrides = None, verbose: _Verbose = False, dry_run: _DryRun = False) -> None:
    """Cold start: supervised training on completions made from the truth, with verl's SFT trainer."""
    _launch("sft", recipe, overrides, verbose=verbose, dry_run=dry_run)


@app.command()
def train(
    recipe: _RecipeFile, overrides: _Overrides = None, verbose: _Verbose = False, dry_run: _DryRun = False
) -> None:
    """Reinforcement learning on a mix with verl's PPO/GRPO trainer: vLLM rollouts on GPUs, transformers on a CPU."""
    _launch("grpo", recipe, overrides, verbose=verbose, dry_run=dry_run)


def _launch(stage: Stage, recipe: Path, overrides: list[str] | None, *, verbose: bool, dry_run: bool) -> None:
    import yaml

    from .verl.launch import prepare, run
    from .verl.progress import StepLine

    launch = prepare(stage, recipe, overrides or ())
    if dry_run:
        typer.echo(yaml.safe_dump(dict(launch.config), sort_keys=False))
        typer.echo(f"# The above goes to {launch.folder}/config.yaml, and then:\n# {launch.command()}")
        return
    typer.echo(f"{stage}: {launch.folder}  (verl's own output: log.txt)")
    code, lost = run(launch, on_step=StepLine(launch.steps), echo=verbose)
    if lost:
        sys.stderr.write(f"ssrl: the rollouts of {lost} prompt(s) failed; look for 'Error in _run_prompt' in log.txt\n")
    if code:
        log = launch.folder / "log.txt"
        if not verbose:
            sys.stderr.write("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-30:]))
        sys.stderr.write(f"ssrl: verl ended with code {code}; its whole output is in {log}\n")
        raise typer.Exit(code if code > 0 else 1)
