"""The command ``ssrl``. Heavy imports stand inside the commands: ``ssrl list`` answers at once."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import SSRLError

if TYPE_CHECKING:
    from .schedule import SplitName
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
    except OSError as err:  # of a file that was named on the command line; all others are caught where they are read
        sys.stderr.write(f"ssrl: {f'{err.filename}: ' if err.filename else ''}{err.strerror or err}\n")
        raise SystemExit(2) from err
    except ModuleNotFoundError as err:
        if err.name not in ("torch", "transformers", "tokenizers"):
            raise
        sys.stderr.write(f"ssrl: this needs {err.name}, which is not installed: pip install 'ssrl-core[train]'\n")
        raise SystemExit(2) from err


@app.command("list")
def list_tasks(as_json: _AsJson = False) -> None:
    """List the installed tasks, also those that are broken, claimed twice or not allowed, with the reason."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # which would be searched for in all distributions
    gc.disable()  # a brief life spent on imports, of which collecting garbage would be a third, also at its end
    from .listing import list_tasks, table_of_tasks

    rows = list_tasks()
    gc.freeze()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        typer.echo(table_of_tasks(rows))
    else:
        typer.echo("No tasks are installed. For example: pip install ssrl-plugin-shuffled-patches")


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw samples of each level into this file.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Show what a task asks: levels, options, wordings, a sample prompt and its answer."""
    from .plugins import load_task
    from .showing import describe_task, text_of_task

    loaded = load_task(task)
    if picture:
        from .scaffold import write_picture

        write_picture(loaded, picture)
    facts = describe_task(loaded)
    typer.echo(json.dumps(facts, indent=2) if as_json else text_of_task(facts))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the task, e.g. rotated-view.")],
    folder: Annotated[Path, typer.Option("-o", help="Where to make the distribution's folder.")] = Path(),
    author: Annotated[str, typer.Option(help="Who holds the copyright.")] = "",
    license: Annotated[str, typer.Option(help="Apache-2.0, MIT or BSD-3-Clause.")] = "Apache-2.0",
    repository: Annotated[str, typer.Option(help="URL of its repository.")] = "",
) -> None:
    """Write a new task as a complete distribution, which works as it stands, to be changed into your own."""
    from .scaffold import new_project

    project = new_project(name, folder, author=author, license=license, repository=repository)
    typer.echo(f"{project}\n  next: cd {project} && pip install -e . (see CONTRIBUTING.md of ssrl-core)")


@app.command()
def check(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    source: Annotated[str, typer.Option(help="URI of the images; with depth, if the task needs it.")] = "synthetic:",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Half of those of a level.")] = 1000,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Pixels of the longer side of images.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    level: Annotated[list[str] | None, typer.Option(help="A level to check; all by default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the task, e.g. partial_credit=true.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A criterion, or a family of them, e.g. leaks.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Check a task: determinism, contract, verifier, reward hacking, bias, leaks, ambiguity, health."""
    from .testing.command import run_check

    passed = run_check(
        task, source, samples=samples, size=size, seed=seed, levels=level, options=option or [], only=only or [],
        as_json=as_json, echo=typer.echo,
    )  # fmt: skip
    if not passed:
        raise typer.Exit(1)


@app.command("mix")
def describe(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    trials: Annotated[int, typer.Option("-n", min=1, help="Samples to try of each task at each level.")] = 40,
    model: Annotated[str | None, typer.Option(help="Count tokens with the processor of this model.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Print what a mix means: shares, samples, images, tokens of a prompt, rejections, time; tries every level."""
    from rich.console import Console

    from .describe import as_text, describe_mix, errors

    with Console(stderr=True).status("") as status:
        facts = describe_mix(mix, trials=trials, model=model, on_trial=lambda name: status.update(f"trying {name}"))
    typer.echo(json.dumps(facts, indent=2) if as_json else as_text(facts), nl=as_json)
    if errors(facts):
        raise typer.Exit(2)


@app.command()
def preview(
    what: Annotated[str, typer.Argument(help="A mix file, or the name of a task: all its levels.")],
    samples: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    output: Annotated[Path, typer.Option("-o", help="The HTML file to write.")] = Path("preview.html"),
    source: Annotated[str, typer.Option(help="For a task: URI of the images.")] = "synthetic:",
    heldout: Annotated[bool, typer.Option("--heldout", help="Show the held-out split.")] = False,
) -> None:
    """Write samples, with prompts, truths and recipes, into one self-contained HTML page."""
    from rich.progress import track

    from .gallery import open_mix, write_gallery

    loaded = open_mix(what, source=source, split="heldout" if heldout else "train", samples=samples)
    hidden = not sys.stderr.isatty()
    indices = track(range(min(samples, len(loaded))), description="samples", transient=True, disable=hidden)
    examples = (loaded[index] for index in indices)
    title = f"{loaded.path.name}, {loaded.split}"
    count = write_gallery(examples, output, title=title, rejections=loaded.rejections)
    typer.echo(f"{count} samples -> {output}")
    for task, reasons in loaded.rejections.items():
        if reasons:
            typer.echo(f"  {task}: rejected " + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common()))


@app.command()
def export(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the shards; started again, the export goes on.")],
    samples: Annotated[
        int | None, typer.Option("-n", min=1, help="The first so many; the whole split by default.")
    ] = None,
    split: Annotated[str, typer.Option(help="train or heldout.")] = "train",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time: 1 by default; on a cluster, its CPUs.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On a Ray cluster; DIR is one that all nodes see.")] = False,
    address: Annotated[
        str | None, typer.Option(help="With --ray: of the cluster; that of this machine, or a new one, by default.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples of a shard.")] = 1000,
    jpeg: Annotated[int | None, typer.Option(min=1, max=100, help="Quality of JPEG; PNG by default.")] = None,
    files: Annotated[bool, typer.Option("--files", help="Keep images as files next to the shards.")] = False,
) -> None:
    """Write samples as Parquet, which verl's own dataset and datasets.load_dataset read."""
    from .export import export, progress_bar, summary

    if address and not ray:
        raise typer.BadParameter("is of a Ray cluster: add --ray", param_hint="--address")
    with progress_bar() as show:
        manifest = export(
            mix, output, samples=samples, split=_split(split), workers=workers, ray=ray, address=address,
            shard_size=shard_size, jpeg=jpeg, files=files, on_progress=show,
        )  # fmt: skip
    typer.echo(summary(manifest, output))


def _split(name: str) -> SplitName:
    if name not in ("train", "heldout"):
        raise typer.BadParameter(f"{name!r} is neither train nor heldout", param_hint="--split")
    return "heldout" if name == "heldout" else "train"


@app.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="JSONL: verl's dumps, or task, truth, params, completion.")],
    output: Annotated[Path | None, typer.Option("-o", help="Write the lines with their new scores.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Score saved rollouts again, with the verifiers as they are now."""
    from .score import rescore, table

    facts = rescore(files, output=output)
    typer.echo(json.dumps(facts, indent=2) if as_json else table(facts))


@app.command("eval")
def evaluate(
    mix: Annotated[Path, typer.Argument(help="A mix file.")],
    model: Annotated[str | None, typer.Option(help="A model to run here: a folder, or a name on the hub.")] = None,
    engine: Annotated[str, typer.Option(help="What runs it: transformers, or vllm in a server of its own.")] = (
        "transformers"
    ),
    endpoint: Annotated[str | None, typer.Option(help="URL of a server, e.g. http://localhost:8000/v1.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=1, help="The first so many in all; the whole split by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Folder; started again, the evaluation goes on.")] = None,
    split: Annotated[str, typer.Option(help="heldout or train.")] = "heldout",
    trained_on: Annotated[list[Path] | None, typer.Option(help="A mix that the model was trained on.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling; the samples are those of the mix.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="transformers: prompts at a time.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="vllm, endpoint: requests at a time.")] = 16,
    retries: Annotated[int, typer.Option(min=0, help="endpoint: of a request.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="endpoint: seconds of a request.")] = 600.0,
    body: Annotated[str, typer.Option(help="endpoint: JSON that every request says besides.")] = "{}",
    as_json: _AsJson = False,
) -> None:
    """Measure a model on held-out samples: accuracy by task and level against chance, and a report."""
    from .evaluate.command import run_eval, text_of_rows

    summary = run_eval(
        mix, model=model, engine=engine, endpoint=endpoint, name=name, samples=samples, output=output,
        split=_split(split), trained_on=trained_on or [], temperature=temperature, max_tokens=max_tokens, seed=seed,
        batch=batch, concurrency=concurrency, retries=retries, timeout=timeout, body=body,
    )  # fmt: skip
    typer.echo(json.dumps(summary, indent=2) if as_json else text_of_rows(summary["rows"]))
    sys.stderr.write(f"report: {summary['folder']}/report.html\n")
    if summary["failed"]:
        lost = "; ".join(f"{n} x {reason}" for reason, n in summary["failed"].items())
        sys.stderr.write(f"ssrl: without an answer, and asked again at the next start: {lost}\n")
        raise typer.Exit(1)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Folder of another one, of the same mix.")],
    as_json: _AsJson = False,
) -> None:
    """Compare two evaluations sample by sample: which differences are more than chance?"""
    from .evaluate.command import comparison, text_of_changes

    facts = comparison(first, second)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo("".join(f"{line}\n" for line in facts["differs"]) + text_of_changes(facts["rows"]))


@app.command()
def tiny_model(
    mix: Annotated[Path, typer.Argument(help="A mix file; the tokenizer is trained on its prompts.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the model.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Build a tiny, untrained model of the Qwen2.5-VL architecture for trying things out on a CPU."""
    from .mix import load_mix
    from .tiny import build_tiny_model

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SSRLError(f"{folder} exists, and is left as it is: name a new folder")
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
