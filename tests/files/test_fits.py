"""FITS: every byte that is not a repaired pixel or a checksum card stays."""

import contextlib
import gzip
import warnings

import numpy as np
import pytest
from conftest import write_fits

from fixpix_cli import files
from fixpix_cli.cfa import Cfa
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

    with open(tmp_path / "s.fits", "wb") as stream:
        text = write_fits(tmp_path / "plain.fits", image(np.int16)).read_bytes()
        stream.write(text.replace(b"EXTEND  =                    T", b"BSCALE  =                 -0.5"))
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


def damaged_gzip(whole):
    packed = bytearray(gzip.compress(whole))
    packed[-8] ^= 1  # the CRC: what was unpacked is not what was packed
    return bytes(packed)


def test_a_damaged_gzip_is_an_error_never_a_wrong_picture(tmp_path):
    """Lost otherwise: noise from a bad download enters a defect map as thousands of hot pixels."""
    whole = write_fits(tmp_path / "a.fits", image(np.uint16)).read_bytes()
    (tmp_path / "bad.fits.gz").write_bytes(damaged_gzip(whole))
    with pytest.raises(UnreadableError, match=r"bad\.fits\.gz"):
        files.load(tmp_path / "bad.fits.gz")
    middle = bytearray(gzip.compress(whole))
    middle[400:464] = bytes(64)
    for data in (middle, gzip.compress(whole)[:3000]):
        (tmp_path / "bad.fits.gz").write_bytes(data)
        with pytest.raises(UnreadableError, match=r"bad\.fits\.gz"):
            files.load(tmp_path / "bad.fits.gz")


@pytest.mark.parametrize("name", ["plain.fits", "plain.fits.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_content_says_whether_it_is_gzip(tmp_path, name, zipped):
    """Lost otherwise: a renamed file is read, and patched, in the midst of its compressed bytes."""
    from astropy.io import fits

    source, target = tmp_path / name, tmp_path / f"out-{name}"
    whole = tmp_path / "whole.fits"
    # Two planes: the compressed bytes are longer than the first plane's promise.
    fits.HDUList([fits.PrimaryHDU(image(np.uint16)), fits.ImageHDU(image(np.int32))]).writeto(whole)
    source.write_bytes(gzip.compress(whole.read_bytes()) if zipped else whole.read_bytes())
    frame = files.load(source)
    assert np.array_equal(frame.mosaics[0].samples, image(np.uint16))
    after = edited(image(np.int32))
    files.save(frame, [Edit.between(image(np.uint16), image(np.uint16)), Edit.between(image(np.int32), after)], target)
    again = files.load(target)
    assert np.array_equal(again.mosaics[0].samples, image(np.uint16))
    assert np.array_equal(again.mosaics[1].samples, after)
    assert (target.read_bytes()[:2] == b"\x1f\x8b") == zipped


def test_gzip_keeps_its_name_and_time(tmp_path):
    """Lost otherwise: gunzip -N no longer restores the original's name and date."""
    import io

    whole = write_fits(tmp_path / "a.fits", image(np.uint16)).read_bytes()
    packed = io.BytesIO()
    with gzip.GzipFile("night_7.fits", "wb", fileobj=packed, mtime=1_500_000_000) as stream:
        stream.write(whole)
    source, target = tmp_path / "a.fits.gz", tmp_path / "o.fits.gz"
    source.write_bytes(packed.getvalue())
    frame = files.load(source)
    files.save(frame, [Edit.between(image(np.uint16), edited(image(np.uint16)))], target)
    head = len(b"night_7.fits") + 11
    assert target.read_bytes()[:head] == source.read_bytes()[:head]
    old, new = (np.frombuffer(gzip.decompress(p.read_bytes()), np.uint8) for p in (source, target))
    assert len(old) == len(new) and np.flatnonzero(old != new).min() >= frame.layout[0].offset


def test_damaged_tiles_and_boasting_headers_stay_our_errors(tmp_path):
    """Lost otherwise: one bad file of the night ends the run with a traceback or takes all memory."""
    from astropy.io import fits

    path = tmp_path / "bad.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image(np.uint16))]).writeto(path)
    whole = path.read_bytes()
    boast = whole.replace(b"ZNAXIS1 =                   80", b"ZNAXIS1 =               800000")
    boast = boast.replace(b"ZNAXIS2 =                   60", b"ZNAXIS2 =               600000")
    assert boast != whole
    start = len(whole) - 2880 * 2
    for data in (boast, whole[:-5760], whole[:start] + bytes(range(256)) * 22):
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match=r"bad\.fits\.fz"):
            files.load(path)


def test_fuzzed_files_raise_our_errors_only(tmp_path):
    """Lost otherwise: a flipped bit in one file of a batch stops the others."""
    from astropy.io import fits

    plain, tiled = tmp_path / "p.fits", tmp_path / "t.fits"
    fits.PrimaryHDU(image(np.uint16)).writeto(plain, checksum=True)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image(np.uint16))]).writeto(tiled)
    rng = np.random.default_rng(3)
    path = tmp_path / "fuzz.fits"
    for data in (plain.read_bytes(), tiled.read_bytes(), gzip.compress(plain.read_bytes())):
        for n in range(80):
            bad = bytearray(data)
            for place in rng.integers(0, min(len(bad), 5760 if n % 2 else len(bad)), int(rng.choice([1, 4, 20]))):
                bad[place] = int(rng.integers(0, 256))
            path.write_bytes(bad[: int(rng.integers(1, len(bad)))] if n % 5 == 0 else bad)
            with contextlib.suppress(FixpixError):
                files.load(path)


@pytest.mark.parametrize("word", ["bzip2", "xz", "SIMPLE = F", "No SIMPLE card", "END", "promises", "not a number"])
def test_the_reason_is_in_the_message(tmp_path, word):
    """Lost otherwise: the user cannot tell a bad download from a file to unpack first."""
    import bz2
    import lzma

    whole = write_fits(tmp_path / "a.fits", image(np.uint16)).read_bytes()
    data = {
        "bzip2": bz2.compress(whole),
        "xz": lzma.compress(whole),
        "SIMPLE = F": whole.replace(b"SIMPLE  =                    T", b"SIMPLE  =                    F"),
        "No SIMPLE card": b"\xff\xd8\xff\xe0" + bytes(5000),
        "END": whole[:2880].replace(b"END   ", b"XXX   ") + whole[2880:],
        "promises": whole[:5000],
        "not a number": whole.replace(b"BZERO   =                32768", b"BZERO   =                'off'"),
    }[word]
    (tmp_path / "bad.fits").write_bytes(data)
    with pytest.raises(UnreadableError) as raised:
        files.load(tmp_path / "bad.fits")
    assert word in str(raised.value) and "bad.fits" in str(raised.value)


@pytest.mark.parametrize("case", ["shifted quote", "number", "no room", "no DATASUM", "no CHECKSUM"])
def test_odd_checksum_cards_are_renewed(tmp_path, case):
    """Lost otherwise: archives reject the repaired file as damaged."""
    from astropy.io import fits

    source, target = tmp_path / "a.fits", tmp_path / "o.fits"
    fits.PrimaryHDU(image(np.uint16)).writeto(source, checksum=True)
    whole = source.read_bytes()
    name = b"CHECKSUM= " if case in ("shifted quote", "no CHECKSUM") else b"DATASUM = "
    place = whole.index(name)
    card = {
        "shifted quote": b"CHECKSUM=  '" + whole[place + 11 : place + 27] + b"' / x",
        "number": b"DATASUM =           1234567890 / n",
        "no room": b"DATASUM = '1' / " + b"c" * 64,
    }.get(case, b"COMMENT")
    source.write_bytes(whole[:place] + card.ljust(80) + whole[place + 80 :])
    frame = files.load(source)
    files.save(frame, [Edit.between(image(np.uint16), edited(image(np.uint16)))], target)
    data = target.read_bytes()
    words = np.frombuffer(data, ">u4")
    if case == "no CHECKSUM":
        kept = str(fits.getheader(target)["DATASUM"])
        assert int(kept) == fold(words[2880 // 4 :])
    else:  # the sum of a whole HDU is all ones (FITS standard 4.0, 4.4.2.7)
        assert fold(words) == 0xFFFFFFFF
    assert len(data) == len(whole)


def fold(words):
    """Ones' complement sum, written apart from the keeper's."""
    total = sum(words.tolist())
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


@pytest.mark.parametrize("tail", [b"trailing junk" * 30, "cut padding"])
def test_amateur_endings_survive(tmp_path, tail):
    """Lost otherwise: files of programs that pad carelessly are refused, or 'mended' without being asked."""
    source, target = tmp_path / "a.fits", tmp_path / "o.fits"
    whole = write_fits(source, image(np.uint16)).read_bytes()
    source.write_bytes(whole[: 2880 + 60 * 80 * 2] if isinstance(tail, str) else whole + tail)
    frame = files.load(source)
    after = edited(image(np.uint16), 7)
    files.save(frame, [Edit.between(image(np.uint16), after)], target)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert len(old) == len(new) and 0 < np.count_nonzero(old != new) <= 14


def test_placeholders_say_nothing(tmp_path):
    """Lost otherwise: a map for -1 C, a white level of 0, or a camera called XXXXXX."""
    cards = {"CAMTEMP": -1.0, "SATURATE": 0, "INSTRUME": "XXXXXX", "CCDXBIN": 3, "CCDYBIN": 2}
    frame = files.load(write_fits(tmp_path / "a.fits", image(np.uint16), **cards))
    assert frame.conditions.temperature is None and frame.identity.model == ""
    assert frame.mosaics[0].white == 65535 and frame.identity.binning == (2, 3)
    cold = files.load(write_fits(tmp_path / "b.fits", image(np.uint16), **{"CCD-TEMP": -1.0}))
    assert cold.conditions.temperature == -1


@pytest.mark.data
def test_a_real_fpacked_frame_equals_its_unpacked_twin(data):
    """Lost otherwise: fpacked lights cannot be used with maps of the same camera."""
    frame = files.load(data / "fits/canon_100d_solved.fits.fz")
    twin = files.load(data / "fits/canon_100d_unsolved.fits")
    assert frame.mosaics[0].shape == twin.mosaics[0].shape == (700, 700)
    assert frame.mosaics[0].samples.dtype == twin.mosaics[0].samples.dtype == np.uint16


@pytest.mark.data
def test_real_files(tmp_path, data):
    paths = [*sorted((data / "fits").glob("*.[fF][iI][tT][sS]")), *sorted((data / "darks").glob("*.FIT"))]
    assert len(paths) > 40
    for path in paths:
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


@pytest.mark.parametrize("word, cfa", [("none", "MONO"), ("RGGB", "RGGB"), ("QUAD_RGGB", "RRGGRRGGGGBBGGBB")])
def test_a_stated_pattern_is_taken_or_refused_by_name(tmp_path, word, cfa):
    from astropy.io import fits

    hdu = fits.PrimaryHDU(image(np.uint16))
    hdu.header["BAYERPAT"] = word
    hdu.writeto(tmp_path / "a.fits")
    assert files.load(tmp_path / "a.fits").mosaics[0].cfa == Cfa.parse(cfa)
    hdu.header["BAYERPAT"] = "XYZW"
    hdu.writeto(tmp_path / "b.fits")
    with pytest.raises(RefusedError, match=r"b.fits: its BAYERPAT 'XYZW'.*--cfa"):
        files.load(tmp_path / "b.fits")
