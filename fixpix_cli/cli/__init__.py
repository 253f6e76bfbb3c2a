"""Floor 4. The command line: one small file per command.

A command parses, calls the library and hands the outcomes to the report.
Heavy libraries are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import FixpixError, Interrupted


class Group(TyperGroup):
    """Turns our errors into one line on stderr and their exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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

    def list_commands(self, ctx: Any) -> list[str]:
        return ["calibrate", "detect", "correct", "inject", "evaluate", "maps", "models"]


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
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
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


from . import calibrate, correct, detect, evaluate, inject, maps, maps_change, models  # noqa: E402, F401

for module in (calibrate, detect, correct, inject, evaluate):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(maps.app, name="maps")
app.add_typer(models.app, name="models")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``fixpix`` command."""
    app(args=list(arguments) if arguments is not None else None)
