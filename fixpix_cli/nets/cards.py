"""Floor 2. A model's card: what it is, what it wants, what it was trained on, where it fails.

The card is JSON in the ONNX file's metadata under the key ``fixpix``, so that
a model and its card cannot be parted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import __version__
from ..errors import ModelError
from ..normalise import FEATURES, NORMALISATION, RADIUS

#: The metadata key under which the card is stored.
KEY = "fixpix"
#: Version of the card itself.
CARD = 1


@dataclass(frozen=True)
class Card:
    """What a model says about itself.

    Parameters
    ----------
    name, task, family : str
        For example ``mlp-7x7``, ``correct``, ``mlp``.
    input, output : str
        Names of the net's input, (n, features) float32, and output, (n,) float32.
    features, radius : int
        Length of one input; the window has 2 * radius + 1 rows and columns.
    normalisation : int
        `fixpix_cli.normalise.NORMALISATION` at the time of training.
    cfa : tuple of str
        Names of the patterns that the net knows.
    program : tuple of two str
        The first version of fixpix that can use it, and the first that no longer can (empty: none).
    training : dict
        Settings and facts of the run.
    data : tuple of dict
        ``source`` and ``licence`` of everything that it was trained on.
    metrics : dict
        What was measured on the validation cameras.
    best_below_rate : float or None
        The greatest rate of scattered bad pixels up to which it beats least squares on the mean of
        the validation cameras; None where it does not.
    limits : tuple of str
    code : str
        SHA-256 of the training code.
    card : int
        Version of the card's layout.
    """

    name: str
    task: str
    family: str
    input: str
    output: str
    features: int
    radius: int
    normalisation: int
    cfa: tuple[str, ...]
    program: tuple[str, str]
    training: dict[str, Any]
    data: tuple[dict[str, str], ...]
    metrics: dict[str, Any]
    best_below_rate: float | None
    limits: tuple[str, ...]
    code: str
    card: int = CARD

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def parse(cls, text: str | None, source: str) -> Card:
        """The card from its JSON text; `source` names the file in errors.

        Raises
        ------
        ModelError
            No card, not JSON, a field missing or of the wrong type, another version.
        """
        if not text:
            raise ModelError(f"{source}: no {KEY!r} card in its metadata: not a model made for fixpix")
        try:
            stored = json.loads(text)
        except ValueError as error:
            raise ModelError(f"{source}: the model's card is not JSON: {error}") from error
        if not isinstance(stored, dict):
            raise ModelError(f"{source}: the model's card is not a JSON object")
        if stored.get("card") != CARD:
            raise ModelError(f"{source}: card version {stored.get('card')!r}, this fixpix reads {CARD}")
        known = {field.name for field in fields(cls)}
        if missing := sorted(known - stored.keys()):
            raise ModelError(f"{source}: the model's card lacks {', '.join(missing)}")
        values = {name: _tuples(stored[name]) for name in known}
        for name, kinds in _TYPES.items():
            if not isinstance(values[name], kinds) or isinstance(values[name], bool):
                raise ModelError(f"{source}: the card's {name!r} has the wrong type: {values[name]!r:.60}")
        card = cls(**values)
        card.check(source)
        return card

    def check(self, source: str) -> None:
        """Raise ModelError where this program cannot feed the model."""
        if self.normalisation != NORMALISATION:
            raise ModelError(
                f"{source}: trained with normalisation {self.normalisation}, this fixpix has {NORMALISATION}"
            )
        if self.family == "mlp" and (self.features, self.radius) != (FEATURES, RADIUS):
            raise ModelError(
                f"{source}: wants {self.features} inputs of radius {self.radius}, not {FEATURES} of {RADIUS}"
            )
        if len(self.program) != 2:
            raise ModelError(f"{source}: the card's 'program' is not a pair of versions")
        first, end = self.program
        if _version(__version__) < _version(first) or (end and _version(__version__) >= _version(end)):
            until = f" and before {end}" if end else ""
            raise ModelError(f"{source}: made for fixpix from {first}{until}, this is {__version__}")


_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "task", "family", "input", "output", "code"), str),
    **dict.fromkeys(("features", "radius", "normalisation"), int),
    **dict.fromkeys(("cfa", "program", "data", "limits"), tuple),
    **dict.fromkeys(("training", "metrics"), dict),
    "best_below_rate": (float, int, type(None)),
}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 0.1.0rc1 -> (0, 1, 0)."""
    numbers = []
    for part in str(text).split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
