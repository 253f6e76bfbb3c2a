"""Floor 4. The command line: one small file per command.

A command parses, calls the library and hands the outcomes to the report.
Heavy libraries are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import FixpixError, Interrupted
from . import plain

COMMANDS = ("calibrate", "detect", "correct", "inject", "evaluate", "maps", "models")
_STYLE: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns our errors into one line on stderr and their exit codes."""
    try:
        yield
    except FixpixError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("stopped; whole files only were left behind", err=True)
        raise SystemExit(Interrupted.exit_code) from None
    except BrokenPipeError:
        # The reader of our stdout has gone (fixpix ... | head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


class Group(TyperGroup):
    """The commands, each imported when it is asked for."""

    def invoke(self, ctx: Any) -> Any:
        with told():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(cmd_name) if cmd_name in COMMANDS else None


@cache
def _command(name: str) -> Any:
    """One command, imported when it is asked for."""
    module = importlib.import_module(f".{name}", __name__)
    alone: Any = typer.Typer(**_STYLE)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
        return typer.main.get_group(alone).commands[name]
    alone.command(name)(module.command)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Group,
    name="fixpix",
    help="Find and repair bad pixels in raw sensor images (FITS, TIFF, DNG, camera raws).\n\n"
    "Nothing but bad pixels changes; what fixpix learns of a camera stays in its map.\n\n"
    "\b\nExamples:\n"
    "  fixpix calibrate darks/                 learn a camera's bad pixels\n"
    "  fixpix correct lights/ --out repaired   repair them in other frames\n"
    "  fixpix correct *.dng --auto             repair without a map",
    no_args_is_help=True,
    **_STYLE,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fixpix {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Shared by all commands."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``fixpix`` command."""
    # Frames and parts of frames are worked on side by side; a matrix product on all processors would wait for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        module = importlib.import_module(f".{words[0]}", __name__)
        found = None if hasattr(module, "app") else plain.arguments(module.command, words[1:])
        if found is not None:
            with told():
                try:
                    module.command(**found)
                except typer.Exit as done:
                    raise SystemExit(done.exit_code) from None
            return
    app(args=words)
