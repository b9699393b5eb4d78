"""The command line ``ssrl``: one module for each command, named after it.

Only the module of the typed command is imported, so ``ssrl list`` does not wait for the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Annotated

import typer

from ..errors import SSRLError

COMMANDS = {
    "list": "List the installed tasks, including broken, duplicate and not allowed ones, with the reason.",
    "catalog": "Show the distributions that can be installed, and whether they pass the checks.",
    "show": "Show what a task asks: levels, options, wordings, a sample prompt and its answer.",
    "new": "Write a new task as a complete distribution that works, to be changed into your own.",
    "check": "Check a task: determinism, contract, verifier, reward hacking, bias, leaks, ambiguity, health.",
    "mix": "Print what a mix means: shares, samples, images, tokens of a prompt, rejections, time; tries every level.",
    "preview": "Write samples, with truths and recipes, into one self-contained HTML page; or ask you (--quiz).",
    "export": "Write samples as Parquet, which verl's own dataset and datasets.load_dataset read.",
    "score": "Score saved rollouts again, with the verifiers that are installed now.",
    "eval": "Measure a model on held-out samples: accuracy by task and level against chance, and a report.",
    "benchmark": "Measure a model on spatial benchmarks of others: score, blind baseline, published figure, report.",
    "compare": "Compare two evaluations sample by sample: which differences are more than chance?",
    "tiny-model": "Build a tiny, untrained model of the Qwen2.5-VL architecture for experiments on a CPU.",
    "sft": "Cold start: supervised training on completions made from the truth, with verl's SFT trainer.",
    "train": "Reinforcement learning with verl's PPO/GRPO trainer: vLLM rollouts on GPUs, transformers on a CPU.",
}
"""All commands and their help, in the order of ``ssrl --help``. The module of each has the function ``command``."""


_OFF = ("", "0", "false", "no", "off")


def app(imported: Collection[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command line. Only the ``imported`` commands can be run; the others are only listed."""
    built = typer.Typer(
        help="Self-supervised spatial RL: pretext tasks as plugins, trained by verl.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    built.callback()(_options)
    for name, text in COMMANDS.items():
        module = import_module(f".{name.replace('-', '_')}", __package__) if name in imported else None
        built.command(name, help=text)(module.command if module else _not_imported)
    return built


def _not_imported() -> None:
    raise AssertionError("this command was not imported")


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Also: SSRL_DEBUG=1.")] = False,
) -> None:
    if debug:
        os.environ["SSRL_DEBUG"] = "1"


def main() -> None:
    """Run the command line.

    SSRLError, OSError and a missing library of the ``train`` extra end with a message and exit code 2. With ``--debug``
    before the command, or SSRL_DEBUG=1, they are raised, so that Python shows the traceback.
    """
    typed = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        app([typed] if typed else [])()
    except (SSRLError, OSError, ModuleNotFoundError) as err:
        message = _message(err)
        if message is None or os.environ.get("SSRL_DEBUG", "0").lower() not in _OFF:
            raise
        sys.stderr.write(f"ssrl: {message}\n")
        raise SystemExit(2) from err


def _message(err: SSRLError | OSError | ModuleNotFoundError) -> str | None:
    """The message for the user; None for an error that only a traceback explains."""
    if isinstance(err, SSRLError):
        return str(err)
    if isinstance(err, OSError):
        file = f"{err.filename}: " if err.filename else ""
        return f"{file}{err.strerror or err} (ssrl --debug ... shows the traceback)"
    if err.name in ("torch", "transformers", "tokenizers"):
        return f"this needs {err.name}, which is not installed: pip install 'ssrl-core[train]'"
    return None
