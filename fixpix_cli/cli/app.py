"""The commands as typer knows them: help, errors of usage, and whatever `plain` leaves to it."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

from .. import __version__
from . import COMMANDS, told
from .typed import App

_STYLE: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


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
    module = importlib.import_module(f".{name}", __package__)
    alone: Any = App(**_STYLE)
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
