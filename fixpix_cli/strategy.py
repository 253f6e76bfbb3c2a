"""Floor 3. What `correct --auto` decides, as pure functions of what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cfa import Cfa
from .mosaic import Bool
from .repair import CLASSICAL

#: Methods that `--method` offers now.
METHODS = ("auto", "mlp", *CLASSICAL)


@dataclass(frozen=True)
class Measured:
    """What is known of a plane's damage before the repair.

    Parameters
    ----------
    rate : float
        Bad pixels / pixels.
    clustered : float
        Share of the bad pixels with a bad direct neighbour.
    """

    rate: float
    clustered: float


def measure(bad: Bool) -> Measured:
    """Rate and clustering of a mask."""
    count = int(np.count_nonzero(bad))
    if not count:
        return Measured(0.0, 0.0)
    touching = np.zeros_like(bad)
    touching[1:] |= bad[:-1]
    touching[:-1] |= bad[1:]
    touching[:, 1:] |= bad[:, :-1]
    touching[:, :-1] |= bad[:, 1:]
    return Measured(count / bad.size, int(np.count_nonzero(bad & touching)) / count)


def choose(measured: Measured, cfa: Cfa, mlp_up_to: float | None) -> str:
    """The repair method for one plane.

    Parameters
    ----------
    measured : Measured
    cfa : Cfa
    mlp_up_to : float or None
        The greatest damage rate at which the shipped MLP's card shows that it
        beats least squares on the validation cameras; None where no model
        knows this CFA.

    Returns
    -------
    str
        A name of `METHODS`. Least squares fits weights for every tile position,
        for which large tiles (X-Trans) in small frames leave too few pixels; it
        then falls back to medians by itself.
    """
    if mlp_up_to is not None and 0 < measured.rate <= mlp_up_to:
        return "mlp"
    return "least-squares"
