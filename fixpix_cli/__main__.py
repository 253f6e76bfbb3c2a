"""``python -m fixpix_cli`` is the ``fixpix`` command."""

from .cli import main

main()
