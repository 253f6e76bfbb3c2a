"""Masks written without astropy. Lost otherwise: a mask that says other pixels, or that other programs cannot read."""

import numpy as np
import pytest
from astropy.io import fits

from fixpix_cli import maps
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.maps import fitsmap, plainfits

KINDS = [1, int(DQ.HOT) | 1, 1 << 30 | 1]
CARDS = [
    *[("FPXSRC", "it's a file.fits", "frame"), ("FPXN", 7, "bad pixels"), ("FPXS", "", ""), ("FPXRATE", 0.001, "x")],
    *[
        ("FPXREAL", 0.0008984520634374373, "of all"),
        ("FPXTINY", -1.2345678901234567e-100, ""),
        ("FPXWHITE", 4095.0, ""),
    ],
]


def listed(shape, count, kinds=KINDS, seed=0):
    rng = np.random.default_rng(seed)
    pixels = np.sort(rng.choice(shape[0] * shape[1], count, replace=False))
    return DefectMap.listed(shape, pixels, rng.choice(kinds, count))


def written(path, planes, **options):
    maps.write_mask(path, planes, overwrite=True, **options)
    return path.read_bytes()


@pytest.mark.parametrize("kinds", [KINDS, [-1, 1, 1 << 30, -(1 << 31) + 1]], ids=["flags", "any numbers"])
@pytest.mark.parametrize(
    ("shape", "count"), [((1, 1), 0), ((50, 70), 0), ((50, 70), 3), ((40, 1001), 600), ((2000, 3001), 9000)]
)
def test_the_same_bytes_as_astropys(tmp_path, shape, count, kinds):
    plane = listed(shape, count, kinds)
    assert plainfits.mask([([plane], 1)], CARDS) is not None
    image = DefectMap(plane.dq.copy())  # an image is astropy's
    options = {"cards": CARDS, "row_order": "TOP-DOWN"}
    mine, theirs = (written(tmp_path / name, [p], **options) for name, p in (("a", plane), ("b", image)))
    assert mine == theirs
    with fits.open(tmp_path / "a", checksum=True) as hdus:
        assert np.array_equal(hdus["DQ"].data, plane.dq) and hdus[0].header["FPXSRC"] == "it's a file.fits"
        assert len(hdus["DQ_DEF"].data) == 8


@pytest.mark.parametrize(
    "options", [{}, {"keys": (0, 2, 0, 2), "per_key": True}, {"keys": (3, 1, 2, 4), "per_key": True}]
)
def test_several_planes(tmp_path, options):
    planes = [listed((60, 70), 20, seed=n) for n in range(4)]
    images = [DefectMap(plane.dq.copy()) for plane in planes]
    assert written(tmp_path / "a", planes, **options) == written(tmp_path / "b", images, **options)
    assert maps.dq_extensions(planes, keys=(0,), per_key=False) == maps.dq_extensions(images, keys=(0,), per_key=False)


def test_the_ends_of_tiles_and_frames(tmp_path, monkeypatch):
    for module in (plainfits, fitsmap.plainfits):
        monkeypatch.setattr(module, "TILE_PIXELS", 5 * 67)
    edges = np.array([0, 66, 67, 5 * 67 - 1, 5 * 67, 5 * 67 + 1, 200 * 67 - 1])
    plane = DefectMap.listed((200, 67), edges, np.full(len(edges), 3))
    assert written(tmp_path / "a", [plane]) == written(tmp_path / "b", [DefectMap(plane.dq.copy())])


def test_what_takes_more_is_left_to_astropy(tmp_path):
    many = listed((50, 70), 1000)
    assert plainfits.mask([([many], 1)], []) is None
    long = [("FPXSRC", "x" * 100, "frame")]
    assert plainfits.mask([([listed((50, 70), 3)], 1)], long) is None
    maps.write_mask(tmp_path / "a.fits", [many], cards=long)
    with fits.open(tmp_path / "a.fits") as hdus:
        assert np.array_equal(hdus["DQ"].data, many.dq) and hdus[0].header["FPXSRC"] == "x" * 100
