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

from ..errors import FixpixError, Interrupted
from . import plain

COMMANDS = ("calibrate", "detect", "correct", "inject", "evaluate", "maps", "models")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns our errors into one line on stderr and their exit codes."""
    try:
        yield
    except FixpixError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("stopped; whole files only were left behind", file=sys.stderr)
        raise SystemExit(Interrupted.exit_code) from None
    except BrokenPipeError:
        # The reader of our stdout has gone (fixpix ... | head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


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
                module.command(**found)
            return
    from .app import app

    app(args=words)
