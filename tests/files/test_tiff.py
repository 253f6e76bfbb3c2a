"""TIFF keeper: what the tags and an Astro-TIFF header say, and damage of every kind.

The variants of compression, predictor and byte order are in test_tiff_dng.py.
"""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import tifffile

from fixpix_cli import files
from fixpix_cli.cfa import RGGB
from fixpix_cli.errors import FixpixError, UnreadableError
from fixpix_cli.mosaic import Assume, Edit

SEGMENT_TAGS = (273, 279, 324, 325)


def image(dtype=np.uint16, shape=(150, 200)):
    rng = np.random.default_rng(0)
    return (
        40 + np.add.outer(np.arange(shape[0]) * 0.3, np.arange(shape[1]) * 0.2) + rng.integers(0, 20, shape)
    ).astype(dtype)


def edited(samples, where):
    out = samples.copy()
    out.reshape(-1)[list(where)] = np.arange(1, len(where) + 1).astype(samples.dtype)
    return out


def changed(source, target):
    """Places of the bytes that differ within the old length, and the growth."""
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    return np.flatnonzero(old != new[: len(old)]), len(new) - len(old)


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "tile": (64, 48)}, {"compression": "lzw"}], ids=str)
def test_wide_samples(tmp_path, dtype, byteorder, options):
    """Lost otherwise: 32-bit stacks and calibrated frames, in either byte order."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = image(dtype)
    tifffile.imwrite(source, before, byteorder=byteorder, metadata=None, photometric="minisblack", **options)
    frame = files.load(source)
    assert frame.mosaics[0].samples.dtype == dtype and np.array_equal(frame.mosaics[0].samples, before)
    after = edited(before, (0, 3 * 200 + 4, before.size - 1))
    files.save(frame, [Edit.between(before, after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    assert np.array_equal(tifffile.imread(target), after)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["strips", "tiles"])
def test_only_touched_segments_and_their_two_tags_change(tmp_path, compression, tile):
    """Lost otherwise: good pixels, metadata or private tags of a file that was promised to stay as it was."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    layout = {"tile": tile} if tile else {"rowsperstrip": 10}
    tifffile.imwrite(source, image(), compression=compression, metadata=None, **layout)
    frame = files.load(source)
    after = edited(image(), (5 * 200 + 7, 5 * 200 + 9))  # the first strip or tile
    files.save(frame, [Edit.between(image(), after)], target)
    where, growth = changed(source, target)
    allowed = np.zeros(source.stat().st_size, bool)
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        allowed[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]] = True
        for tag in page.tags:
            if tag.code in SEGMENT_TAGS:
                allowed[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = True
        longest = 2 * page.databytecounts[0] + 64
    assert allowed[where].all() and growth <= longest
    assert np.array_equal(tifffile.imread(target), after)


def test_an_uncompressed_float_nan_survives(tmp_path):
    """Lost otherwise: missing data of calibrated frames turns into numbers."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = image(np.float32)
    before[10, 10] = np.nan
    tifffile.imwrite(source, before, metadata=None)
    after = edited(before, (77,))
    files.save(files.load(source), [Edit.between(before, after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after, equal_nan=True)
    where, growth = changed(source, target)
    assert growth == 0 and len(where) <= 4


def test_thumbnails_are_ignored_and_kept(tmp_path):
    """Lost otherwise: files with a preview are refused as stacks, or lose the preview."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    with tifffile.TiffWriter(source) as out:
        out.write(image(), metadata=None)
        out.write(image()[::4, ::4], subfiletype=1, metadata=None)
    after = edited(image(), (9,))
    files.save(files.load(source), [Edit.between(image(), after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    with tifffile.TiffFile(target) as tiff:
        assert np.array_equal(tiff.pages[1].asarray(), image()[::4, ::4])


@pytest.mark.parametrize("rows", [100, 250], ids=["array", "in the entry"])
def test_offsets_and_counts_that_outgrow_their_type(tmp_path, rows):
    """Lost otherwise: files whose writer stored small byte counts as SHORT cannot be repaired."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = np.full((250, 300), 7, np.uint16)
    data = [zlib.compress(before[top : top + rows].tobytes()) for top in range(0, 250, rows)]
    place, tags, many = 8 + sum(map(len, data)), [], len(data)
    offsets = [8 + sum(map(len, data[:n])) for n in range(many)]
    for tag, values in ((273, offsets), (279, [len(d) for d in data])):
        packed = struct.pack(f"<{many}H", *values)
        tags.append((tag, many, packed if len(packed) <= 4 else struct.pack("<I", place)))
        data, place = ([*data, packed], place + len(packed)) if len(packed) > 4 else (data, place)
    tags += [(t, 1, struct.pack("<H", v)) for t, v in
             ((256, 300), (257, 250), (258, 16), (259, 8), (262, 1), (277, 1), (278, rows))]  # fmt: skip
    entries = b"".join(struct.pack("<HHI", t, 3, n) + v.ljust(4, b"\0") for t, n, v in sorted(tags))
    source.write_bytes(
        struct.pack("<2sHI", b"II", 42, place) + b"".join(data) + struct.pack("<H", len(tags)) + entries + bytes(4)
    )
    after = np.random.default_rng(0).integers(0, 65536, before.shape).astype(np.uint16)
    assert np.array_equal(tifffile.imread(source), before)
    files.save(files.load(source), [Edit.between(before, after)], target)
    assert np.array_equal(tifffile.imread(target), after) and np.array_equal(
        files.load(target).mosaics[0].samples, after
    )


def test_cfa_black_and_white_tags_speak(tmp_path):
    """Lost otherwise: a mosaic is repaired across colours, or with the wrong black level."""
    tags = [
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes((0, 1, 1, 2)), True),
        (50713, "H", 2, (2, 2), True), (50714, "H", 4, (60, 61, 62, 63), True), (50717, "H", 1, 4095, True),
        (271, "s", 0, "Maker", True), (272, "s", 0, "Model 7", True), (50735, "s", 0, "S-9", True),
    ]  # fmt: skip
    tifffile.imwrite(tmp_path / "a.tif", image(), metadata=None, extratags=tags)
    frame = files.load(tmp_path / "a.tif")
    mosaic = frame.mosaics[0]
    assert mosaic.cfa == RGGB and mosaic.black == ((60.0, 61.0), (62.0, 63.0)) and mosaic.white == 4095
    assert (frame.identity.make, frame.identity.model, frame.identity.serial) == ("Maker", "Model 7", "S-9")
    assert frame.assumed == ()


def test_the_user_wins_over_the_file_and_defaults_are_named(tmp_path):
    """Lost otherwise: nobody sees that colours, black or white were guessed."""
    tifffile.imwrite(tmp_path / "a.tif", image(np.int16), metadata=None)
    frame = files.load(tmp_path / "a.tif")
    assert frame.assumed == ("cfa MONO", "black 0", "white 32767")
    frame = files.load(tmp_path / "a.tif", Assume(RGGB, (1.0, 2.0, 3.0, 4.0), 900.0, "Lab cam"))
    assert frame.assumed == () and frame.mosaics[0].black == ((1.0, 2.0), (3.0, 4.0))
    assert frame.mosaics[0].cfa == RGGB and frame.mosaics[0].white == 900 and frame.identity.camera == "Lab cam"


def test_an_astro_tiff_header_says_how_it_was_taken(tmp_path):
    """Lost otherwise: darks and lights that Siril saved as TIFF find no matching map."""
    header = (
        "SIMPLE  =                    T / file does conform to FITS standard\n"
        "BITPIX  =                   16\n"
        "EXPTIME =                 120. / [s] exposure\n"
        "CCD-TEMP=                -9.8  / CCD temperature\n"
        "GAIN    =                  139\n"
        "IMAGETYP= 'Dark Frame'\n"
        "INSTRUME= 'Owner''s cam / 2'   / name\n"
        "DATE-OBS= '2026-01-15T22:01:00'\n"
        "END"
    )
    tifffile.imwrite(tmp_path / "a.tif", image(), metadata=None, description=header)
    frame = files.load(tmp_path / "a.tif")
    conditions = frame.conditions
    assert (conditions.exposure, conditions.temperature, conditions.gain) == (120, -9.8, 139)
    assert conditions.kind == "dark" and frame.identity.model == "Owner's cam / 2"


@pytest.mark.parametrize("height", [60, 61])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("order", ["TOP-DOWN", "BOTTOM-UP", ""])
def test_the_colours_of_an_astro_tiff(tmp_path, height, turned, order):
    """Lost otherwise: colours are mixed, since the specification turns the rows and not every writer does."""
    fits_cfa = RGGB.flipped_rows(height) if order == "BOTTOM-UP" else RGGB  # as seen from the FITS file's first row
    level = {"R": 300, "G": 900, "B": 500}
    rng = np.random.default_rng(0)
    rows = [[level[fits_cfa.colour(r, c)] for c in range(80)] for r in range(height)]
    stored = (np.array(rows) + rng.normal(0, 10, (height, 80))).astype(np.uint16)
    if turned:
        stored = stored[::-1]
    header = (
        f"SIMPLE  =  T\nBAYERPAT= 'RGGB'\n{f'ROWORDER= {order!r}' if order else ''}\nCAMSN = '77'\nXBINNING= 2\nEND"
    )
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, description=header)
    frame = files.load(tmp_path / "a.tif")
    cfa = frame.mosaics[0].cfa
    assert all(abs(float(stored[r, c]) - level[cfa.colour(r, c)]) < 60 for r in range(2) for c in range(2))
    assert frame.identity.serial == "77" and frame.identity.binning == (1, 2) and "cfa MONO" not in frame.assumed
    dark = tmp_path / "dark.tif"
    tifffile.imwrite(
        dark, np.full((60, 80), 100, np.uint16), metadata=None, description="SIMPLE=T\nBAYERPAT='GBRG'\nEND"
    )
    assert files.load(dark).mosaics[0].cfa.name == "GBRG"


def test_an_ome_header_says_camera_and_exposure(tmp_path):
    """Lost otherwise: all microscopes share one map."""
    xml = (
        "<?xml version='1.0' encoding='UTF-8'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'>"
        "<Instrument ID='Instrument:0'><Detector ID='D:0' Manufacturer='Hama &amp; Co' Model='Orca' SerialNumber='S1'/>"
        "</Instrument><Image ID='Image:0'><Pixels ID='P:0'><Plane TheT='0' ExposureTime='250' ExposureTimeUnit='ms'/>"
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "a.tif", image(), metadata=None, description=xml)
    frame = files.load(tmp_path / "a.tif")
    assert frame.identity.camera == "Hama & Co Orca #S1" and frame.conditions.exposure == 0.25


def test_other_descriptions_are_no_headers(tmp_path):
    """Lost otherwise: a free comment sets the exposure."""
    tifffile.imwrite(tmp_path / "a.tif", image(), metadata=None, description="EXPTIME = 3\nsimple picture")
    assert files.load(tmp_path / "a.tif").conditions.exposure is None


def test_truncated_and_foreign_files_are_named(tmp_path):
    """Lost otherwise: the user does not learn which of a thousand files is broken."""
    tifffile.imwrite(tmp_path / "a.tif", image(), metadata=None, rowsperstrip=10, compression="zlib")
    whole = (tmp_path / "a.tif").read_bytes()
    cases = [whole[:n] for n in (0, 3, 7, 200, len(whole) // 2, len(whole) - 1)]
    for data in [
        *cases,
        b"hello" * 300,
        b"\xff\xd8\xff\xe0" + bytes(900),
        b"II*\0" + struct.pack("<I", 1 << 31),
    ]:
        (tmp_path / "bad.tif").write_bytes(data)
        with pytest.raises(UnreadableError, match=r"bad\.tif"):
            files.load(tmp_path / "bad.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "lzma"])
def test_fuzzed_files_raise_our_errors_only(tmp_path, compression):
    """Lost otherwise: a flipped bit in one file of a batch stops the others."""
    tifffile.imwrite(tmp_path / "a.tif", image(np.uint8, (40, 60)), metadata=None, compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    rng = np.random.default_rng(4)
    for n in range(80):
        bad = bytearray(whole)
        for place in rng.integers(0, 300 if n % 2 else len(bad), int(rng.choice([1, 4, 20]))):
            bad[place] = int(rng.integers(0, 256))
        (tmp_path / "fuzz.tif").write_bytes(bad[: int(rng.integers(1, len(bad)))] if n % 5 == 0 else bad)
        with contextlib.suppress(FixpixError):
            files.load(tmp_path / "fuzz.tif")


@pytest.mark.data
def test_real_multispectral_frames(tmp_path, data):
    """Lost otherwise: MicaSense and Sequoia users get black 0 and lose XMP or EXIF on the way."""
    red = files.load(data / "lab/rededge_IMG_0000_1.tif")
    assert red.mosaics[0].black == ((4800.0, 4800.0), (4800.0, 4800.0)) and red.identity.make == "MicaSense"
    sequoia = files.load(data / "lab/sequoia_IMG_180413_080658_0000_GRE.TIF")
    assert sequoia.mosaics[0].black == (
        (4953.0, 4981.0),
        (4994.0, 4965.0),
    ) and sequoia.identity.serial.startswith("PI")
    lab = sorted((data / "darks").glob("lab8bit*.tif"))
    for path in [red.source, sequoia.source, lab[0], lab[-1], data / "mosaic/openisp_1080p.tif"]:
        frame = files.load(path)
        before = frame.mosaics[0].samples
        after = edited(before, (1, 5000, before.size - 1))
        target = tmp_path / path.name
        files.save(frame, [Edit.between(before, after)], target)
        assert np.array_equal(tifffile.imread(target), after)
        where, growth = changed(path, target)
        if path in (red.source, sequoia.source):
            assert growth == 0 and len(where) <= 3 * before.dtype.itemsize
