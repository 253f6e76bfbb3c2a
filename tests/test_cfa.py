"""Wrong phase means wrong colours: every CFA, every shift."""

import numpy as np
import pytest
from conftest import scene

from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, RGGB, XTRANS, Cfa
from fixpix_cli.errors import UsageError
from fixpix_cli.mosaic import Area
from fixpix_cli.planes import bands

ALL = [*BAYER, MONO, XTRANS, QUAD_RGGB]


@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
def test_a_crop_shifts_the_phase(cfa):
    for row in range(cfa.period[0] + 1):
        for col in range(cfa.period[1] + 1):
            crop = cfa.shifted(row, col)
            for r in range(7):
                for c in range(7):
                    assert crop.colour(r, c) == cfa.colour(row + r, col + c)
            assert crop.shifted(-row, -col) == cfa


@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
def test_neighbours_have_the_colour_and_come_nearest_first(cfa):
    for position in cfa.positions:
        found = cfa.nearest(*position, 8)
        assert len(set(found)) == 8
        distances = [r * r + c * c for r, c in found]
        assert distances == sorted(distances)
        for r, c in found:
            assert cfa.colour(position[0] + r, position[1] + c) == cfa.colour(*position)


@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
def test_the_name_leads_back(cfa):
    assert Cfa.parse(cfa.name) == cfa


def test_flipping_rows_moves_the_phase_with_the_height():
    assert RGGB.flipped_rows(4).tile == ("GB", "RG")
    assert RGGB.flipped_rows(5).tile == ("RG", "GB")


def test_nonsense_is_refused():
    for name in ("", "RGB", "RGGX", "RRRR1", "hello"):
        with pytest.raises(UsageError):
            Cfa.parse(name)


@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 5), (24, 31), (300, 200)])
def test_bands_show_every_pixel_and_its_neighbours(cfa, shape):
    samples = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    out = np.full(shape, -1, np.float32)
    for band in bands(samples, cfa, 6):
        for position in cfa.positions:
            view = band.view(position)
            band.put(out, position, view)
            offset = cfa.nearest(*position, 1)[0]
            shifted = band.view(position, offset)
            rows, cols = np.mgrid[
                band.top + position[0] : band.top + band.rows : cfa.period[0], position[1] : shape[1] : cfa.period[1]
            ]
            r, c = rows + offset[0], cols + offset[1]
            inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
            assert np.array_equal(shifted[inside], samples[r[inside], c[inside]])
    assert np.array_equal(out, samples)


def test_a_cropped_mosaic_keeps_colour_and_black():
    mosaic = scene(RGGB)
    crop = mosaic.cropped(Area(3, 5, 50, 60))
    assert crop.cfa == RGGB.shifted(3, 5)
    assert np.array_equal(crop.samples, mosaic.samples[3:50, 5:60])
