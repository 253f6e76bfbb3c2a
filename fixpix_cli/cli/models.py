"""``fixpix models``."""

import dataclasses
import json
from typing import Annotated, Any

import typer

from . import options as o
from .typed import App

app = App(help="Look at the neural nets that fixpix ships.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """List the shipped models.

    \b
    Example:
      fixpix models list
    """
    from ..nets import registry

    for model in registry.list_models():
        facts = _plain(model)
        typer.echo(json.dumps(facts) if as_json else "  ".join(f"{v}" for v in facts.values()))


@app.command()
def devices(as_json: o.Json = False) -> None:
    """List what nets can run on (--device), and why the others cannot be used.

    \b
    Example:
      fixpix models devices
    """
    from ..jobs.working import devices as tried

    for name, why in tried():
        facts = {"device": name, "usable": not why, "error": why or None}
        typer.echo(json.dumps(facts) if as_json else f"{name}: {why or 'usable'}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped model's name, or an .onnx file.")],
    as_json: o.Json = False,
) -> None:
    """Show a model's card: data, settings, metrics, limits.

    \b
    Example:
      fixpix models show mlp
    """
    from ..nets import registry

    facts = _plain(registry.show(name))
    typer.echo(json.dumps(facts) if as_json else json.dumps(facts, indent=2))


@app.command()
def verify(as_json: o.Json = False) -> None:
    """Check every shipped model against its recorded hash and card.

    \b
    Example:
      fixpix models verify
    """
    from ..nets import registry

    worst = 0
    for check in registry.verify():
        facts = _plain(check)
        worst = worst if facts["ok"] else 3
        typer.echo(json.dumps(facts) if as_json else f"{facts['name']}: {'ok' if facts['ok'] else facts['error']}")
    raise typer.Exit(worst)


def _plain(value: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))
