"""The command line ``ssrl``: one module for each command, named after it.

Only the module of the typed command is imported, so ``ssrl list`` does not wait for the others.
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
    "list", "show", "new", "check", "mix", "preview", "export", "score", "eval", "compare", "tiny-model", "sft",
    "train",
)  # fmt: skip
"""All commands, in the order of ``ssrl --help``. The module of each has the function ``command``."""


def app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands. Imports their modules."""
    built = typer.Typer(
        help="Self-supervised spatial RL: pretext tasks as plugins, trained by verl.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    built.callback()(_options)
    for name in commands:
        built.command(name)(import_module(f".{name.replace('-', '_')}", __package__).command)
    return built


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
        app([typed] if typed in COMMANDS else COMMANDS)()
    except (SSRLError, OSError, ModuleNotFoundError) as err:
        message = _message(err)
        if message is None or os.environ.get("SSRL_DEBUG", "0") not in ("", "0"):
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
