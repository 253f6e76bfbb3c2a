"""``python -m fixpix_cli`` is the ``fixpix`` command."""

from .cli import main

if __name__ == "__main__":
    main()
