"""Masks read without astropy. Lost otherwise: good pixels are repaired, and bad ones stay."""

import numpy as np
import pytest
from astropy.io import fits

from fixpix_cli import maps
from fixpix_cli.defects import DQ, DefectMap, ListedMap
from fixpix_cli.errors import UnreadableError
from fixpix_cli.maps import sparse

ALL = [int(DQ.DO_NOT_USE | flag) for flag in DQ]


def flags(shape, rate, kinds, seed=0):
    rng = np.random.default_rng(seed)
    dq = np.zeros(shape, np.int32)
    bad = rng.random(shape) < rate
    dq[bad] = rng.choice(kinds, np.count_nonzero(bad))
    return dq


def stored(path):
    """The DQ planes by astropy."""
    with fits.open(path) as hdus:
        images = [np.asarray(hdu.data) for hdu in hdus if hdu.name == "DQ"]
    return [plane for image in images for plane in (image[None] if image.ndim == 2 else image)]


@pytest.mark.parametrize("kinds", [[1], ALL, [-1, 1, 1 << 30, -(1 << 31) + 1]], ids=["one", "all", "signs"])
@pytest.mark.parametrize("rate", [0, 1e-4, 0.01, 0.3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 31), (7, 33), (300, 211), (1500, 2100)])
def test_a_mask_is_what_astropy_reads(tmp_path, shape, rate, kinds):
    """The last shape has several tiles."""
    planes = [flags(shape, rate, kinds), flags(shape, rate, kinds, 1)]
    path = tmp_path / "m.fits"
    maps.write_mask(path, [DefectMap(plane) for plane in planes])
    read = sparse.read(path)
    if rate < 0.01:
        assert read is not None
    for found in [maps.read_mask(path).planes, *([read[1]] if read else [])]:
        for mine, theirs, truth in zip(found, stored(path), planes, strict=True):
            assert np.array_equal(mine.dq, theirs) and np.array_equal(theirs, truth) and mine.shape == truth.shape
            assert np.array_equal(mine.bad, truth & 1 != 0) and len(mine) == np.count_nonzero(truth & 1)


def test_one_extension_per_plane_and_its_header(tmp_path):
    path, planes = tmp_path / "m.fits", [flags((40, 50), 0.01, ALL, seed) for seed in (0, 1)]
    cards = [("FPXRATE", 0.01, "rate"), ("FPXKIND", "relative", "kind")]
    maps.write_mask(path, [DefectMap(p) for p in planes], keys=(0, 2), per_key=True, row_order="TOP-DOWN", cards=cards)
    mask = maps.read_mask(path)
    assert mask.row_order == "TOP-DOWN" and mask.header == {"FPXRATE": 0.01, "FPXKIND": "relative"}
    assert [np.array_equal(a.dq, b) for a, b in zip(mask.planes, planes, strict=True)] == [True, True]
    assert isinstance(mask.planes[0], ListedMap)


def test_other_peoples_masks_are_astropys(tmp_path):
    """Plain images, other codecs, tiles of parts of rows."""
    dq = flags((64, 96), 0.01, ALL)
    kinds = {
        "plain": fits.ImageHDU(dq, name="DQ"),
        "gzip": fits.CompImageHDU(dq, name="DQ", compression_type="GZIP_1"),
        "tiles": fits.CompImageHDU(dq, name="DQ", compression_type="RICE_1", tile_shape=(32, 32)),
        "short": fits.CompImageHDU((dq & 1).astype(np.int16), name="DQ", compression_type="RICE_1"),
    }
    for name, hdu in kinds.items():
        path = tmp_path / f"{name}.fits"
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        assert not maps.is_listed(path)
        assert np.array_equal(maps.read_mask(path).planes[0].bad, dq & 1 != 0)


def test_a_damaged_mask_is_an_error_or_what_astropy_reads(tmp_path):
    """Lost otherwise: a flipped bit of the file marks other pixels as bad than any other program sees."""
    path = tmp_path / "m.fits"
    maps.write_mask(path, [DefectMap(flags((60, 64), 0.02, [1, 1 | 1 << 11]))])
    data = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as hdus:
        start, size = hdus[1].fileinfo()["datLoc"], hdus[1].header["PCOUNT"] + 8
    rng = np.random.default_rng(0)
    for place in rng.choice(size, 150, replace=False):
        broken = bytearray(data)
        broken[start + place] ^= 1 << int(rng.integers(8))
        target = tmp_path / f"{place}.fits"
        target.write_bytes(broken)
        mine = sparse.read(target)
        if mine is not None:
            assert np.array_equal(mine[1][0].dq, stored(target)[0])
            continue
        try:
            assert np.array_equal(maps.read_mask(target).planes[0].dq, stored(target)[0])
        except UnreadableError as error:
            assert target.name in str(error)


def test_a_mask_that_is_replaced_is_read_again(tmp_path):
    """Lost otherwise: the last file is remembered, and its old pixels with it."""
    path = tmp_path / "m.fits"
    for seed in range(3):
        dq = flags((40, 50), 0.02, [1], seed)
        maps.write_mask(path, [DefectMap(dq)], overwrite=True)
        assert np.array_equal(maps.read_mask(path).planes[0].dq, dq)
