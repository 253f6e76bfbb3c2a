"""Commands for typer: our own words for options (`plain`) become its."""

from __future__ import annotations

import typing
from collections.abc import Callable
from types import FunctionType
from typing import Annotated, Any

import typer

from .plain import Argument, Option


def typed(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, annotated for typer."""
    assert isinstance(command, FunctionType)
    twin = FunctionType(
        command.__code__, command.__globals__, command.__name__, command.__defaults__, command.__closure__
    )
    hints = typing.get_type_hints(command, include_extras=True)
    twin.__annotations__ = {name: _typers(hint) for name, hint in hints.items()}
    twin.__doc__, twin.__kwdefaults__ = command.__doc__, command.__kwdefaults__
    return twin


def _typers(hint: Any) -> Any:
    if typing.get_origin(hint) is not Annotated:
        return hint
    kind, info = typing.get_args(hint)
    if isinstance(info, Option):
        return Annotated[kind, typer.Option(*info.spellings, **info.facts)]
    if isinstance(info, Argument):
        return Annotated[kind, typer.Argument(**info.facts)]
    return hint


class App(typer.Typer):
    """A group of commands whose options may be told in our words."""

    def command(self, *words: Any, **facts: Any) -> Callable[[Any], Any]:
        keep = super().command(*words, **facts)

        def kept(command: Any) -> Any:
            keep(typed(command))
            return command

        return kept
