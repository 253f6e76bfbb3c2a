"""Neighbourhoods of planes: rings around every pixel."""

import numpy as np
import pytest

from fixpix_cli import planes


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (12, 17)], ids=str)
@pytest.mark.parametrize("inner, outer", [(0, 1), (0, 2), (1, 3), (2, 4), (4, 6)])
def test_a_ring_around_every_pixel(shape, inner, outer):
    plane = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for join, nothing in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        found = planes.ring(plane, inner, outer, join, nothing)
        assert found.shape == shape and found.dtype == np.float32
        for r, c in np.ndindex(shape):
            rows, cols = np.ogrid[: shape[0], : shape[1]]
            away = np.maximum(np.abs(rows - r), np.abs(cols - c))
            seen = plane[(away > inner) & (away <= outer)]
            assert found[r, c] == join.reduce(seen, initial=nothing)
