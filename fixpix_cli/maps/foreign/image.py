"""Floor 2. Masks that are images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import RefusedError, UnreadableError
from ...mosaic import Array, Bool
from .places import Listed, check_shape


def from_image(path: Path, image: Array, *, good: bool = False, limit: bool = True, row_order: str = "") -> Listed:
    """A mask from an image: what is not zero is bad; with `good` what is zero.

    Raises
    ------
    UnreadableError
        Not one plane, or it holds NaN.
    RefusedError
        More than half of the pixels would be bad, which tells of the opposite polarity; not with `limit` False.
    """
    if image.ndim != 2:
        raise UnreadableError(f"{path}: has {image.ndim} axes; a mask is one plane of rows and columns")
    if image.dtype.kind not in "biuf":
        raise UnreadableError(f"{path}: holds {image.dtype} values; a mask holds numbers")
    check_shape(path, image.shape)
    if image.dtype.kind == "f" and np.isnan(image).any():
        raise UnreadableError(f"{path}: holds NaN, which is neither good nor bad")
    bad: Bool = (image == 0) if good else (image != 0)
    share, values = float(bad.mean()), len(np.unique(image[image != 0]))
    if limit and share > 0.5:
        what = f"holds {values} different values, as a picture does, and " if values > 100 else ""
        raise RefusedError(
            f"{path}: {what}{share:.0%} of its pixels would be bad; if zero marks the bad ones give --zero-is-bad, "
            "else --zero-is-good"
        )
    which = "good" if good else "bad"
    notes = (f"lost: what {values} different values mean; all but zero count as {which}",) if values > 1 else ()
    return Listed((DefectMap.of(bad),), notes=notes, row_order=row_order)
