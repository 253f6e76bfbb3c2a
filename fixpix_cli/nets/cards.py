"""Floor 2. A model's card: what it is, what it wants, what it was trained on, where it fails.

The card is JSON in the ONNX file's metadata under the key ``fixpix``, so that
a model and its card cannot be parted.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from .. import __version__
from ..cfa import Cfa
from ..errors import ModelError

#: The metadata key under which the card is stored.
KEY = "fixpix"
#: Version of the card itself.
CARD = 2


@dataclass(frozen=True)
class Card:
    """What a model says about itself.

    Parameters
    ----------
    name, task, family : str
        For example ``mlp-7x7``, ``correct``, ``mlp``.
    inputs, outputs : dict
        Name -> shape of every input and output of the net, all float32; a text stands for any size.
    normalisation : str
        Name and version of the input contract at the time of training, for example ``filled-1``: each
        serving module has its own and refuses another.
    cfa : tuple of str
        Names of the patterns that the net knows.
    program : tuple of two str
        The first version of fixpix that can use it, and the first that no longer can (empty: none).
    serving : dict
        What the serving module must know: radius, tile multiple, halo, temperature, and so on.
    training : dict
        Settings and facts of the run.
    data : tuple of dict
        ``source`` and ``licence`` of everything that it was trained on.
    metrics : dict
        What was measured on the validation cameras.
    limits : tuple of str
    code : str
        SHA-256 of the training code.
    card : int
        Version of the card's layout.
    """

    name: str
    task: str
    family: str
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    normalisation: str
    cfa: tuple[str, ...]
    program: tuple[str, str]
    serving: dict[str, Any]
    training: dict[str, Any]
    data: tuple[dict[str, str], ...]
    metrics: dict[str, Any]
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
        if len(self.program) != 2:
            raise ModelError(f"{source}: the card's 'program' is not a pair of versions")
        first, end = self.program
        if _version(__version__) < _version(first) or (end and _version(__version__) >= _version(end)):
            until = f" and before {end}" if end else ""
            raise ModelError(f"{source}: made for fixpix from {first}{until}, this is {__version__}")

    def require(self, source: str, task: str, family: str, normalisations: Collection[str]) -> None:
        """Raise ModelError where the model is for something else, or trained with another input contract."""
        if (self.task, self.family) != (task, family):
            raise ModelError(
                f"{source}: a model of family {self.family!r} for task {self.task!r}, not {family!r} for {task!r}"
            )
        if self.normalisation not in normalisations:
            has = ", ".join(normalisations)
            raise ModelError(f"{source}: trained with normalisation {self.normalisation!r}, this fixpix has {has}")

    def knows(self, cfa: Cfa) -> bool:
        """Whether the net was made for this pattern, in any phase."""
        return cfa.family in self.cfa

    def require_above_zero(self, source: str, keys: Collection[str]) -> None:
        """ModelError where one of these numbers of `serving` is missing, none, or not above 0."""
        for key in keys:
            if not self.number(key, source) > 0:
                raise ModelError(f"{source}: the card's serving[{key!r}] is not above 0")

    def number(self, key: str, source: str) -> float:
        """A number of `serving`; ModelError where it is missing or none."""
        value = self.serving.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{source}: the card's serving[{key!r}] is {value!r:.40}, not a number")
        return value


_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "task", "family", "normalisation", "code"), str),
    **dict.fromkeys(("cfa", "program", "data", "limits"), tuple),
    **dict.fromkeys(("inputs", "outputs", "serving", "training", "metrics"), dict),
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
