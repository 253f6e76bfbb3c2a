"""Floor 2. Nets that were trained only to be compared with: no command uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ModelError
from ..mosaic import Array, Bool, Mosaic
from ..normalise import paper
from ..repair import repairable
from . import registry
from .sessions import Session, open_session


@dataclass(frozen=True, eq=False)
class PaperMlp:
    """The FixPix paper's MLP, 24-48-12-1, trained on our data: one net per damage rate, as the paper has it.

    A `repair.Corrector`. The net whose rate is nearest to the mask's, in logarithms, answers.

    Parameters
    ----------
    sessions : dict
        Damage rate (0 to 1) -> open net.
    """

    sessions: dict[float, Session]

    @classmethod
    def open(cls, folder: Path | None = None) -> PaperMlp:
        """All nets of a folder; by default of the shipped ``reference`` folder.

        Raises
        ------
        ModelError
            There is none, or one is not what the folder's SHA256SUMS says or not the paper's.
        """
        folder = folder or registry.folder() / "reference"
        found = {}
        for path in sorted(folder.glob("paper-mlp-*.onnx")):
            blob = registry.verified(path)
            session = open_session(blob.data, str(path), blob.sha256)
            session.card.require(str(path), "correct", "paper-mlp", {paper.NORMALISATION})
            found[session.card.number("rate", str(path))] = session
        if not found:
            raise ModelError(f"{folder}: holds no paper-mlp-*.onnx")
        return cls(found)

    def __call__(self, mosaic: Mosaic, bad: Bool) -> Array:
        """(N,) float64 values in DN for the bad pixels in row order; NaN outside the active area.

        Parameters
        ----------
        mosaic : Mosaic
        bad : (H, W) bool array
        """
        rows, cols = np.nonzero(bad)
        inside = repairable(mosaic, bad)[rows, cols]
        values = np.full(len(rows), np.nan)
        if inside.any():
            rate = np.count_nonzero(bad) / bad.size
            session = self.sessions[min(self.sessions, key=lambda known: abs(np.log(known / rate)))]
            light, area = mosaic.light(), mosaic.active
            window = paper.encode(light, rows[inside] - area.top, cols[inside] - area.left)
            values[inside] = paper.decode(light, session.run(window=window)["value"])
        return values
