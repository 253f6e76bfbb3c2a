"""Floor 2. What the judges share that weigh a pixel's value against what would replace it (`verdicts`, `doubts`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from ..cfa import Cfa
from ..mosaic import Mosaic
from ..tiles import Tile, each, tiles
from . import registry
from .correctors import MlpCorrector, shipped_mlp
from .sessions import Session

#: What is seen around the parts in which a plane is judged, rows and columns.
HALO = 32


@dataclass(frozen=True, eq=False)
class Judge:
    """A net that judges pixels by numbers of their repair.

    Parameters
    ----------
    session : Session
    mlp : MlpCorrector
        It makes the repairs.
    """

    session: Session
    mlp: MlpCorrector

    #: Family and input contract of its models, how many numbers of a pixel they see, and what their cards must hold.
    FAMILY: ClassVar[str]
    NORMALISATION: ClassVar[str]
    LENGTH: ClassVar[int]
    NUMBERS: ClassVar[tuple[str, ...]]

    @classmethod
    def open(cls, name: str | Path = "", threads: int = 1) -> Self:
        """A shipped model by name (verified; default: its family's) or a user's own .onnx by path.

        Repairs are the shipped mlp's.

        Raises
        ------
        ModelError
        """
        inputs: dict[str, tuple[int | str, ...]] = {"features": ("n", cls.LENGTH)}
        session = registry.open_model(name or cls.FAMILY, "detect", cls.FAMILY, {cls.NORMALISATION: inputs}, threads)
        session.card.require_above_zero(session.source, cls.NUMBERS)
        return cls(session, shipped_mlp())

    def serving(self, key: str) -> float:
        """A number of the card's serving section."""
        return self.session.card.number(key, self.session.source)

    def supports(self, cfa: Cfa) -> bool:
        """Whether there are repairs for this pattern to judge by: mono and Bayer."""
        return self.mlp.supports(cfa)


def in_parts(light: Mosaic, side: int, work: Callable[[Tile], None], threads: int) -> None:
    """Call `work` for the parts of a plane, cores of `side` rows and columns, so many at the same time."""
    each(work, tiles(light.shape, side, HALO, math.lcm(*light.cfa.period, 2)), threads)
