"""Command lines without surprises, read without typer.

typer loads and builds for longer than the repair of a small frame takes. The
options of a command are what its signature says, in our own words (`Option`,
`Argument`); here they are read from it one by one, and at the first word that
is not plainly right (help, an unknown option, a value that does not fit) typer
takes over (`typed`) and says so.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any


class Argument:
    """How a positional parameter shows itself: what `typer.Argument` is to be called with."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts


class Option:
    """The spellings of an option and how it shows itself: what `typer.Option` is to be called with."""

    def __init__(self, *spellings: str, **facts: Any) -> None:
        self.spellings, self.facts = spellings, facts


@dataclass(frozen=True)
class _Option:
    """One parameter of a command: its type, whether it may be given again, its bounds, its environment variable."""

    name: str
    kind: type
    many: bool
    least: float | None
    most: float | None
    variable: str | None


def arguments(command: Callable[..., None], words: Sequence[str]) -> dict[str, Any] | None:
    """What a command is to be called with, or None where typer has to decide.

    Parameters
    ----------
    command : callable
        Its parameters are annotated with `Option` and `Argument`.
    words : sequence of str
        The command line behind the command's name.
    """
    positional, options = _parameters(command)
    if positional is None:
        return None
    found: dict[str, Any] = {}
    paths: list[str] = []
    for option in options.values():
        if option.variable and (text := os.environ.get(option.variable)):
            found[option.name] = option.kind(text)
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            paths.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in options or (equals and not name.startswith("--")):
            return None
        option = options[name]
        if option.kind is bool:
            if equals:
                return None
            found[option.name] = True
            continue
        text = value if equals else next(rest, None)
        if not text or (not equals and text.startswith("-")):
            return None
        try:
            given = option.kind(text)
        except ValueError:
            return None
        if option.kind in (int, float) and not _within(given, option):
            return None
        if option.many:
            found.setdefault(option.name, []).append(given)
        else:
            found[option.name] = given
    return {**found, positional: paths} if paths else None


def _within(value: float, option: _Option) -> bool:
    return (option.least is None or value >= option.least) and (option.most is None or value <= option.most)


def _parameters(command: Callable[..., None]) -> tuple[str | None, dict[str, _Option]]:
    """The name of the one positional parameter, a list of text, and the options by their spellings.

    None where a parameter is of a kind that is not known here.
    """
    positional: str | None = None
    options: dict[str, _Option] = {}
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        if name == "return":
            continue
        kind, info = typing.get_args(hint)
        kinds = [part for part in typing.get_args(kind) if part is not NoneType] or [kind]
        plain = kinds[0] if typing.get_origin(kind) is not list else kind
        many = typing.get_origin(plain) is list
        plain = typing.get_args(plain)[0] if many else plain
        if isinstance(info, Argument):
            if positional is not None or (plain, many) != (str, True):
                return None, {}
            positional = name
            continue
        if not isinstance(info, Option) or plain not in (bool, int, float, str, Path):
            return None, {}
        option = _Option(name, plain, many, *(info.facts.get(fact) for fact in ("min", "max", "envvar")))
        for spelling in info.spellings or [f"--{name.replace('_', '-')}"]:
            options[spelling] = option
    return positional, options
