"""FITS: every byte that is not a repaired pixel or a checksum card stays."""

import gzip
import warnings

import numpy as np
import pytest
from conftest import write_fits

from fixpix_cli import files
from fixpix_cli.errors import FixpixError, RefusedError, UnreadableError
from fixpix_cli.mosaic import Assume, Edit

DTYPES = [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


def edited(samples, count=50, seed=0):
    rng = np.random.default_rng(seed)
    where = rng.choice(samples.size, count, replace=False)
    out = samples.copy()
    out.reshape(-1)[where] = rng.integers(1, 120, count).astype(samples.dtype)
    return out


def image(dtype, shape=(60, 80)):
    top = 200 if dtype == np.uint8 else 30000
    return np.random.default_rng(1).integers(130, top, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("checksum", [False, True])
def test_only_the_pixels_bytes_change(tmp_path, dtype, checksum):
    from astropy.io import fits

    source, target = tmp_path / "a.fits", tmp_path / "out.fits"
    fits.PrimaryHDU(image(dtype)).writeto(source, checksum=checksum)
    frame = files.load(source)
    assert frame.mosaics[0].samples.dtype == dtype and np.array_equal(frame.mosaics[0].samples, image(dtype))
    after = edited(image(dtype))
    files.save(frame, [Edit.between(frame.mosaics[0].samples, after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert len(old) == len(new)
    start, size = frame.layout[0].offset, np.dtype(dtype).itemsize
    differs = np.flatnonzero(old != new)
    pixels = set(((differs[differs >= start] - start) // size).tolist())
    assert pixels <= set(np.flatnonzero(image(dtype) != after).tolist())
    cards = {bytes(old[i // 80 * 80 : i // 80 * 80 + 8]) for i in differs[differs < start]}
    assert cards <= ({b"CHECKSUM", b"DATASUM "} if checksum else set())
    with warnings.catch_warnings():
        warnings.simplefilter("error", fits.verify.VerifyWarning)
        warnings.simplefilter("error", UserWarning)
        with fits.open(target, checksum=True) as hdus:
            assert np.array_equal(hdus[0].data, after)


def test_extensions_are_planes_and_our_own_are_not(tmp_path):
    from astropy.io import fits

    source, target = tmp_path / "m.fits", tmp_path / "o.fits"
    one, two = image(np.uint16), image(np.int16, (30, 20))
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(one, name="A"),
            fits.ImageHDU(two),
            fits.ImageHDU(np.zeros((3, 3), np.int32), name="DQ"),
        ]
    ).writeto(source)
    frame = files.load(source)
    assert frame.keys == (1, 2) and [m.shape for m in frame.mosaics] == [(60, 80), (30, 20)]
    after = edited(two, 5)
    files.save(frame, [Edit.between(one, one), Edit.between(two, after)], target)
    assert np.array_equal(files.load(target).mosaics[1].samples, after)
    assert np.array_equal(files.load(target).mosaics[0].samples, one)


def test_gzip_keeps_its_payload(tmp_path):
    plain = write_fits(tmp_path / "a.fits", image(np.uint16))
    packed, target = tmp_path / "a.fits.gz", tmp_path / "o.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    frame = files.load(packed)
    after = edited(image(np.uint16))
    files.save(frame, [Edit.between(image(np.uint16), after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    assert len(gzip.decompress(target.read_bytes())) == plain.stat().st_size


def test_headers_speak(tmp_path):
    cards = {
        "INSTRUME": "ZWO ASI", "CAMSN": "42", "EXPTIME": 30.0, "CCD-TEMP": -10.0, "GAIN": 120, "IMAGETYP": "Dark Frame",
        "BAYERPAT": "GRBG", "XBINNING": 2, "YBINNING": 2, "DATE-OBS": "2026-01-01",
    }  # fmt: skip
    frame = files.load(write_fits(tmp_path / "a.fits", image(np.uint16), **cards))
    assert frame.identity.camera == "ZWO ASI #42" and frame.identity.binning == (2, 2)
    conditions = frame.conditions
    assert (conditions.exposure, conditions.gain, conditions.temperature, conditions.kind) == (30, 120, -10, "dark")
    assert frame.mosaics[0].cfa.name == "GRBG" and frame.assumed == ("black 0", "white 65535")


@pytest.mark.parametrize(
    ("order", "height", "want"), [("TOP-DOWN", 60, "RGGB"), ("BOTTOM-UP", 60, "GBRG"), ("BOTTOM-UP", 61, "RGGB")]
)
def test_row_order_anchors_the_pattern(tmp_path, order, height, want):
    path = write_fits(tmp_path / "a.fits", image(np.uint16, (height, 80)), BAYERPAT="RGGB", ROWORDER=order)
    assert files.load(path).mosaics[0].cfa.name == want


def test_odd_temperatures(tmp_path):
    for text, want in (("11 C", 11), (271.0, -2.15), ("-4,5", -4.5)):
        path = write_fits(tmp_path / "a.fits", image(np.uint16), CAMTEMP=text)
        assert files.load(path).conditions.temperature == pytest.approx(want)


def test_what_cannot_be_kept_exact_is_refused(tmp_path):
    from astropy.io import fits

    cube = write_fits(tmp_path / "cube.fits", np.zeros((3, 4, 5), np.uint16))
    with pytest.raises(RefusedError, match="3 axes"):
        files.load(cube)
    with open(tmp_path / "s.fits", "wb") as stream:
        text = write_fits(tmp_path / "plain.fits", image(np.int16)).read_bytes()
        stream.write(text.replace(b"EXTEND  =                    T", b"BSCALE  =                  0.5"))
    with pytest.raises(RefusedError, match="BSCALE"):
        files.load(tmp_path / "s.fits")
    table = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])])
    table.writeto(tmp_path / "t.fits")
    with pytest.raises(UnreadableError, match="no image"):
        files.load(tmp_path / "t.fits")


def test_damaged_files_are_named(tmp_path):
    whole = write_fits(tmp_path / "a.fits", image(np.uint16)).read_bytes()
    cases = {
        "text": b"hello" * 700,
        "half": whole[:5000],
        "huge": whole.replace(b"NAXIS1  =                   80", b"NAXIS1  =           8000000000"),
    }
    for name, data in cases.items():
        path = tmp_path / f"{name}.fits"
        path.write_bytes(data)
        with pytest.raises(FixpixError, match=name):
            files.load(path)


@pytest.mark.data
def test_real_files(tmp_path, data):
    for path in [*sorted((data / "fits").glob("*.fits")), *sorted((data / "darks").glob("*.FIT"))[:4]]:
        frame = files.load(path, Assume())
        before = frame.mosaics[0].samples
        after = edited(before)
        target = tmp_path / path.name
        files.save(frame, [Edit.between(before, after)], target)
        assert np.array_equal(files.load(target).mosaics[0].samples, after)
        old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (path, target))
        differs = np.flatnonzero(old != new)
        start = frame.layout[0].offset
        assert np.count_nonzero(differs >= start) <= 50 * before.dtype.itemsize
        assert {bytes(old[i // 80 * 80 : i // 80 * 80 + 8]) for i in differs[differs < start]} <= {
            b"CHECKSUM",
            b"DATASUM ",
        }
