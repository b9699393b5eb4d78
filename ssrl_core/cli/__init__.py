"""The command line ``ssrl``: one module for each command, named after it.

Only the module of the command that was typed is imported, so ``ssrl list`` does not wait for the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from ..errors import SSRLError

COMMANDS = (
    "list",
    "show",
    "new",
    "check",
    "mix",
    "preview",
    "export",
    "score",
    "eval",
    "compare",
    "tiny-model",
    "sft",
    "train",
)
"""Every command, in the order of ``ssrl --help``. Its module has the function ``command``."""


def app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands. Imports their modules."""
    made = typer.Typer(
        help="Self-supervised spatial RL: pretext tasks as plugins, trained by verl.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    made.callback()(_options)
    for name in commands:
        made.command(name)(import_module(f".{name.replace('-', '_')}", __package__).command)
    return made


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Also: SSRL_DEBUG=1.")] = False,
) -> None:
    if debug:
        os.environ["SSRL_DEBUG"] = "1"


def main() -> None:
    """Run the command line. An error of the user ends with a message and code 2; with ``--debug``, with a traceback."""
    typed = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        app([typed] if typed in COMMANDS else COMMANDS)()
    except (SSRLError, OSError, ModuleNotFoundError) as err:
        if os.environ.get("SSRL_DEBUG", "0") not in ("", "0"):
            raise
        sys.stderr.write(f"ssrl: {_message(err)}\n")
        raise SystemExit(2) from err


def _message(err: SSRLError | OSError | ModuleNotFoundError) -> str:
    if isinstance(err, SSRLError):
        return str(err)
    if isinstance(err, OSError):
        reason = f"{f'{err.filename}: ' if err.filename else ''}{err.strerror or err}"
        return f"{reason} (ssrl --debug ... shows where)"
    if err.name not in ("torch", "transformers", "tokenizers"):
        raise err
    return f"this needs {err.name}, which is not installed: pip install 'ssrl-core[train]'"
