"""Command lines that are read without typer. Lost otherwise: an option means one thing or another, as the line goes."""

from pathlib import Path
from typing import Annotated

import pytest

from fixpix_cli.cli import calibrate, correct, detect, evaluate, inject, plain
from fixpix_cli.cli import options as o
from fixpix_cli.cli.plain import Option
from fixpix_cli.cli.typed import App

SAID: list[dict] = []


def command(
    paths: o.Paths,
    flag: Annotated[bool, Option("--flag")] = False,
    files: Annotated[list[Path] | None, Option("--map")] = None,
    out: Annotated[Path | None, Option(help="Folder.")] = None,
    method: Annotated[str, Option(help="How.")] = "auto",
    jobs: o.Jobs = 0,
    threshold: o.Threshold = None,
    store: o.Store = None,
    quiet: o.Quiet = False,
) -> None:
    """Take what other commands take."""
    SAID.append(dict(locals()))


def by_typer(words):
    """What typer calls the command with, or None where it complains or helps."""
    app = App(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    SAID.clear()
    try:
        app(args=words, standalone_mode=False)
    except Exception:
        return None
    return SAID[0] if SAID else None


LINES = [
    "a.fits", "a b c --flag", "--flag a --map m --map n", "a --out x --method mlp -j 3", "a --jobs=4 -q", "a --out=x",
    "a --threshold 0.3 --quiet", "- --flag", "a --threshold 1e-1 b", "a --store s --map=m=n", "a -q -q",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_plain_line_calls_the_command_as_typer_does(line, monkeypatch):
    monkeypatch.delenv("FIXPIX_STORE", raising=False)
    found = plain.arguments(command, line.split())
    assert found is not None
    SAID.clear()
    command(**found)
    ours = SAID[0]
    assert ours == by_typer(line.split())


@pytest.mark.parametrize(
    "line",
    ["", "--flag", "a --nosuch", "a --help", "a --jobs x", "a --jobs -1", "a --threshold 2", "a --out",
     "a --map --flag", "a -j", "a -qj 2", "a -j2", "a --flag=1", "a -- b", "a --out ="],
)  # fmt: skip
def test_anything_else_is_typers(line):
    """Its errors and its help are the ones that users see."""
    found = plain.arguments(command, line.split())
    assert found is None or by_typer(line.split()) == {**by_typer(["a"]), **found}


def test_the_store_of_the_environment_is_taken(monkeypatch):
    monkeypatch.setenv("FIXPIX_STORE", "elsewhere")
    assert plain.arguments(command, ["a"])["store"] == by_typer(["a"])["store"] == Path("elsewhere")


@pytest.mark.parametrize("module", [calibrate, correct, detect, evaluate, inject])
def test_every_option_of_every_command_is_known(module):
    """Lost otherwise: a new kind of option quietly makes all lines slow."""
    positional, options = plain._parameters(module.command)
    assert options
    assert (positional is not None) == (module is not evaluate)
