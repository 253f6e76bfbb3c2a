"""Maps of other programs: what goes out comes back, what cannot is said, and bad lines are named."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from fixpix_cli.defects import DQ, TYPES, DefectMap
from fixpix_cli.errors import FixpixError, MismatchError, RefusedError, UnreadableError, UsageError
from fixpix_cli.maps import foreign
from fixpix_cli.maps.foreign import shapes
from fixpix_cli.mosaic import Area

HAVE_H5PY = __import__("importlib.util").util.find_spec("h5py") is not None
NAMES = [
    pytest.param(n, marks=pytest.mark.skipif(n == "nexus" and not HAVE_H5PY, reason="h5py is not installed"))
    for n in foreign.FORMATS
]
IMAGES = ("fits", "edf", "fit2d", "npy", "matlab", "png", "tiff", "pixinsight-map")


def some(shape=(13, 37), seed=0, rate=0.1):
    """A random map with types, single and combined, and a whole row, a whole column and a part of one."""
    rng = np.random.default_rng(seed)
    bad = rng.random(shape) < rate
    kinds = rng.choice([0, *map(int, TYPES), int(DQ.HOT | DQ.TELEGRAPH), int(DQ.DEAD | DQ.HOT)], shape)
    if rate:
        bad[shape[0] // 2] = bad[:, shape[1] // 3] = bad[: shape[0] // 2, -1] = True
    return DefectMap(np.where(bad, kinds | int(DQ.DO_NOT_USE), 0).astype(np.int32))


def through(tmp_path, plane, name, sensor=None, suffix=None):
    """Write and read again."""
    sensor = sensor or foreign.Sensor(plane.shape)
    path = Path(tmp_path) / f"map{suffix or foreign.keeper(name).SUFFIX}"
    foreign.write(path, [plane], sensor, name)
    return foreign.read(path, sensor, name)[0]


@pytest.mark.parametrize("seed", range(25))
def test_any_map_comes_back_as_the_format_promises(tmp_path, seed):
    """`keeps` is what losses are told by: the round trip must be exactly that."""
    rng = np.random.default_rng(seed)
    rows, cols, rate = int(rng.integers(1, 40)), int(rng.integers(1, 70)), (0, 0.02, 0.4)[seed % 3]
    plane = some((rows, cols), seed, rate)
    for name in foreign.FORMATS:
        if name == "nexus" and not HAVE_H5PY:
            continue
        sensor = foreign.Sensor((rows, cols), Area(0, 0, rows, cols), upward=bool(seed % 2))
        path = tmp_path / f"map{foreign.keeper(name).SUFFIX}"
        foreign.write(path, [plane], sensor, name)
        images = {"zero_is_bad": False} if name in IMAGES else {}  # said, since more than half may be bad
        listed, _ = foreign.read(path, sensor, name, **images)
        wanted = foreign.keeper(name).keeps(np.where(plane.bad, plane.dq, 0).astype(np.int32))
        assert np.array_equal(listed.planes[0].dq, wanted), name
        assert not listed.problems, name


@pytest.mark.parametrize("name", NAMES)
def test_losses_count_the_types_that_do_not_come_back(tmp_path, name):
    plane = some()
    back = through(tmp_path, plane, name).planes[0]
    gone = {
        flag.name: int(((plane.dq & flag != 0) & (back.dq & flag == 0)).sum())
        for flag in TYPES
        if ((plane.dq & flag != 0) & (back.dq & flag == 0)).any()
    }
    assert foreign.losses([plane], name).types == gone
    assert np.array_equal(plane.bad, back.bad)


@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_told_by_content(tmp_path, name):
    """Where a file may be of two formats, the user is asked and nothing is guessed."""
    path = tmp_path / f"x{foreign.keeper(name).SUFFIX}"
    foreign.write(path, [some()], foreign.Sensor((13, 37)), name)
    if name == "pixinsight-map":  # its polarity cannot be seen
        assert foreign.sniff(path) == "fits"
    else:
        assert foreign.sniff(path) == name


def test_pairs_of_numbers_without_a_name_are_asked_about(tmp_path):
    (tmp_path / "list.txt").write_text("1 2\n3 4\n")
    with pytest.raises(UsageError, match="rawtherapee or phd2"):
        foreign.sniff(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("lorem ipsum\n")
    with pytest.raises(UnreadableError, match="no map that fixpix knows"):
        foreign.sniff(tmp_path / "list.txt")


# ---------------------------------------------------------------- conventions, by hand


def one(tmp_path, text, name, shape=(10, 20), **sensor):
    path = tmp_path / f"hand{foreign.keeper(name).SUFFIX}"
    path.write_text(text)
    listed, _ = foreign.read(path, foreign.Sensor(shape, **sensor), name)
    return [tuple(p) for p in np.argwhere(listed.planes[0].bad)], listed


def test_dcraw_counts_from_the_visible_area_and_needs_three_numbers(tmp_path):
    area = Area(2, 4, 9, 19)
    found, listed = one(tmp_path, "# mine\n3 1 0  # hot\n0 0 1028350000\n", "dcraw", area=area)
    assert found == [(2, 4), (3, 7)] and "2002-08-03" in listed.notes[0]
    _, listed = one(tmp_path, "3 1\n", "dcraw", area=area)
    assert "line 1" in str(listed.problems[0]) and "column row time" in str(listed.problems[0])
    plane = DefectMap.of(np.ones((10, 20), bool))
    notes = foreign.write(tmp_path / "o", [plane], foreign.Sensor((10, 20), area), "dcraw")
    assert notes == ["lost: 95 pixels of the masked borders, which have no coordinates there"]
    lines = (tmp_path / "o").read_text().splitlines()
    assert lines[1] == "0 0 0" and lines[-1] == "14 6 0" and len(lines) == 1 + 7 * 15


def test_rawtherapee_adds_the_offset_of_the_first_line(tmp_path):
    found, listed = one(tmp_path, "4\n3 1\n", "rawtherapee")
    assert found == [(5, 7)] and any("offset of 4" in note for note in listed.notes)
    assert foreign.keeper("rawtherapee").default_name(foreign.Sensor(make="Canon", model="EOS 100D")) == (
        "Canon EOS 100D.badpixels"
    )


def test_siril_counts_rows_from_the_last_of_fits_and_the_first_of_others(tmp_path):
    text = "# list\nP 3 0 H\nP 4 9 C\nP 5 1\n"
    assert one(tmp_path, text, "siril", upward=True)[0] == [(0, 4), (8, 5), (9, 3)]
    found, listed = one(tmp_path, text, "siril", upward=False)
    assert found == [(0, 3), (1, 5), (9, 4)]
    assert listed.planes[0].dq[0, 3] & DQ.HOT and listed.planes[0].dq[9, 4] & DQ.DEAD
    found, _ = one(tmp_path, "L 1 0\nC 3 0 C\n", "siril", upward=True)
    assert {(8, c) for c in range(20)} | {(r, 3) for r in range(10)} == set(found)


def test_pixinsight_runs_are_inclusive_and_zero_is_bad_in_its_images(tmp_path):
    found, _ = one(tmp_path, "Col 3 2 4\nRow 9 0 1\n", "pixinsight")
    assert found == [(2, 3), (3, 3), (4, 3), (9, 0), (9, 1)]
    assert one(tmp_path, "Row 0 5 5\n", "pixinsight", row_order="BOTTOM-UP")[0] == [(9, 5)]
    plane = DefectMap.of(np.eye(10, 20, dtype=bool))
    for suffix in (".fits", ".tif", ".png"):
        path = tmp_path / f"pi{suffix}"
        foreign.write(path, [plane], foreign.Sensor((10, 20)), "pixinsight-map")
        with pytest.raises(RefusedError, match="--zero-is-bad"):
            foreign.read(path, foreign.Sensor())
        for how in ({"name": "pixinsight-map"}, {"zero_is_bad": True}):
            assert np.array_equal(foreign.read(path, foreign.Sensor(), **how)[0].planes[0].bad, plane.bad)


def test_lsst_boxes_regions_and_reasons(tmp_path):
    text = "# %ECSV 1.0\n# ---\n# datatype:\nx0 y0 width height reason\n3 1 2 3 HOT_PIXEL\n9 0 1 10 COLD_COLUMN\n"
    found, listed = one(tmp_path, text, "lsst")
    assert len(found) == 16 and listed.planes[0].dq[3, 4] & DQ.HOT and listed.planes[0].dq[9, 9] & DQ.DEAD
    assert one(tmp_path, "3 1 2 1\n", "lsst")[0] == [(1, 3), (1, 4)]
    from astropy.table import Table

    for path in (tmp_path / "region.fits", tmp_path / "boxes.ecsv"):
        path.unlink(missing_ok=True)
    Table(
        {
            "X": [4.0, 8.5, 15.0],
            "Y": [2.0, 5.0, 5.5],
            "SHAPE": ["POINT", "BOX", "ROTBOX"],
            "R": [[1.0, 1.0], [2.0, 1.0], [2.0, 1.0]],
            "ROTANG": [0.0, 0.0, 90.0],
            "COMPONENT": [0, 1, 2],
        }
    ).write(tmp_path / "region.fits")
    listed, name = foreign.read(tmp_path / "region.fits", foreign.Sensor((10, 20)))
    assert name == "lsst-fits"
    assert [tuple(p) for p in np.argwhere(listed.planes[0].bad)] == [(1, 3), (4, 7), (4, 8), (4, 14), (5, 14)]


def test_our_ecsv_is_one_for_astropy(tmp_path):
    from astropy.table import Table

    plane = some()
    foreign.write(tmp_path / "a.ecsv", [plane], foreign.Sensor(model='A "quoted" camera', serial="7"), "lsst")
    table = Table.read(tmp_path / "a.ecsv")
    assert table.meta["OBSTYPE"] == "defects" and table.meta["INSTRUME"] == 'A "quoted" camera'
    total = np.zeros(plane.shape, int)
    for row in table:
        total[row["y0"] : row["y0"] + row["height"], row["x0"] : row["x0"] + row["width"]] += 1
    assert np.array_equal(total, plane.bad.astype(int)), "boxes are disjoint and cover the bad pixels"
    table.write(tmp_path / "b.ecsv", overwrite=True)  # as astropy writes it
    both = [foreign.read(tmp_path / f"{n}.ecsv", foreign.Sensor((13, 37)))[0].planes[0].dq for n in "ab"]
    assert np.array_equal(*both)


def test_jwst_reference_files_name_their_own_bits(tmp_path):
    from astropy.io import fits

    dq = np.zeros((4, 5), np.uint32)
    dq[0, 1], dq[1, 2], dq[2, 3], dq[3, 3] = 1 | 2, 1 | 4, 4, 1 | 2**31
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("BIT", "J", array=[0, 1, 2]),
            fits.Column("VALUE", "J", array=[1, 2, 4]),
            fits.Column("NAME", "20A", array=["DO_NOT_USE", "HOT", "UNRELIABLE_FLAT"]),
        ]
    )
    table.header["EXTNAME"] = "DQ_DEF"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(dq, name="DQ"), table]).writeto(tmp_path / "r.fits")
    listed, name = foreign.read(tmp_path / "r.fits", foreign.Sensor())
    found = listed.planes[0].dq
    assert name == "jwst" and found[0, 1] == DQ.DO_NOT_USE | DQ.HOT and found[2, 3] == 0
    assert found[1, 2] == DQ.DO_NOT_USE | DQ.OTHER_BAD_PIXEL
    assert "1 UNRELIABLE_FLAT" in listed.notes[0] and "without DO_NOT_USE: 1 UNRELIABLE_FLAT" in listed.notes[1]


@pytest.mark.skipif(not HAVE_H5PY, reason="h5py is not installed")
def test_nexus_bits(tmp_path):
    import h5py

    mask = np.zeros((4, 5), np.uint32)
    mask[0] = [1 << b for b in (0, 1, 2, 3, 4)]
    mask[1, :4] = [1 << 31, 1 << 8, 1 << 6 | 1 << 3, 1 << 20]
    with h5py.File(tmp_path / "m.nxs", "w") as file:
        file["entry/instrument/eiger/pixel_mask"] = mask
    listed, name = foreign.read(tmp_path / "m.nxs", foreign.Sensor())
    flags = listed.planes[0].dq
    kinds = [DQ.OTHER_BAD_PIXEL, DQ.DEAD, DQ.LOW_QE, DQ.HOT, DQ.TELEGRAPH]
    assert name == "nexus" and [int(DQ.DO_NOT_USE | k) for k in kinds] == flags[0].tolist()
    assert flags[1].tolist() == [0, 1, int(DQ.DO_NOT_USE | DQ.HOT), 0, 0]
    assert len(listed.notes) == 3


@pytest.mark.skipif(HAVE_H5PY, reason="h5py is installed")
def test_without_h5py_the_extra_is_named(run, tmp_path):
    foreign.write(tmp_path / "m.mask.fits", [some()], foreign.Sensor(), "jwst")
    code, _, err = run("maps", "export", "m.mask.fits", "--format", "nexus")
    assert code == 3 and "fixpix[hdf5]" in err and not list(tmp_path.glob("*.nxs"))


def test_fabio_reads_what_we_write_and_we_what_it_writes(tmp_path):
    fabio = pytest.importorskip("fabio")
    plane = some((13, 70))
    for name in ("edf", "fit2d"):
        path = tmp_path / f"a{foreign.keeper(name).SUFFIX}"
        foreign.write(path, [plane], foreign.Sensor(), name)
        assert np.array_equal(fabio.open(str(path)).data != 0, plane.bad)
    for type_ in (np.uint8, np.int32, np.float32, np.uint16):
        fabio.edfimage.EdfImage(data=plane.bad.astype(type_)).write(str(tmp_path / "f.edf"))
        assert np.array_equal(foreign.read(tmp_path / "f.edf", foreign.Sensor())[0].planes[0].bad, plane.bad)
    fabio.fit2dmaskimage.Fit2dMaskImage(data=plane.bad.astype(np.uint8)).write(str(tmp_path / "f.msk"))
    assert np.array_equal(foreign.read(tmp_path / "f.msk", foreign.Sensor())[0].planes[0].bad, plane.bad)


# ---------------------------------------------------------------- bad input

TEXTS = {
    "dcraw": ("3 4 0", "4 3 0", "99 4 0"),
    "rawtherapee": ("3 4", "4 3", "99 4"),
    "siril": ("P 3 4 H", "P 4 3 H", "P 99 4"),
    "pixinsight": ("Col 3 4 4", "Col 4 3 3", "Col 99"),
    "phd2": ("3 4", "4 3", "99 4"),
    "lsst": ("3 4 1 1", "4 3 1 1", "19 4 2 1"),
    "csv": ("3,4", "4,3", "99,4"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_bad_lines_are_named_with_their_numbers(tmp_path, name):
    first, second, outside = TEXTS[name]
    head = ["x,y"] if name == "csv" else ["# a comment"]
    lines = [*head, first, "", "three four five", second, outside, first]
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    listed, _ = foreign.read(tmp_path / "l.txt", foreign.Sensor((10, 20), upward=False), name)
    assert [problem.line for problem in listed.problems] == [4, 6]
    assert "three four five" in str(listed.problems[0]) and "outside" in str(listed.problems[1])
    assert any("line 7" in note for note in listed.notes), "a repeated place is named"
    assert sorted(map(tuple, np.argwhere(listed.planes[0].bad))) == [(3, 4), (4, 3)]


def test_a_list_needs_the_shape_and_ours_say_it(tmp_path):
    (tmp_path / "l.lst").write_text("P 3 4\n")
    with pytest.raises(UsageError, match="--shape HxW or --like FRAME"):
        foreign.read(tmp_path / "l.lst", foreign.Sensor())
    for name in ("dcraw", "rawtherapee", "siril", "phd2", "lsst", "lsst-fits", "csv"):
        path = tmp_path / f"ours{foreign.keeper(name).SUFFIX}"
        foreign.write(path, [some()], foreign.Sensor((13, 37)), name)
        listed, _ = foreign.read(path, foreign.Sensor(), name)
        assert np.array_equal(listed.planes[0].bad, some().bad), name
    with pytest.raises(MismatchError, match="13 x 37"):
        foreign.read(tmp_path / "ours.lst", foreign.Sensor((12, 37)))


DAMAGED = {
    "cut.msk": lambda whole: whole[:-20],
    "cut.edf": lambda whole: whole[:-20],
    "cut.npy": lambda whole: whole[:-20],
    "cut.mat": lambda whole: whole[:-20],
    "cut.png": lambda whole: whole[: len(whole) // 2],
    "cut.tif": lambda whole: whole[: len(whole) // 2],
    "cut.fits": lambda whole: whole[:3000],
    "cut.bpm.xml": lambda whole: whole[: len(whole) // 2],
    "empty.lst": lambda whole: b"",
    "binary.badpixels": lambda whole: bytes(range(256)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_named(tmp_path, name):
    formats = {
        foreign.keeper(n).SUFFIX: n
        for n in ("fit2d", "edf", "npy", "matlab", "png", "tiff", "fits", "xml", "siril", "dcraw")
    }
    format_ = next(n for suffix, n in formats.items() if name.endswith(suffix))
    path = tmp_path / name
    foreign.write(path, [some((40, 50))], foreign.Sensor(), format_)
    path.write_bytes(DAMAGED[name](path.read_bytes()))
    with pytest.raises((UnreadableError, UsageError), match=name.replace(".", r"\.")):
        foreign.read(path, foreign.Sensor())


def test_claims_of_giant_sizes_are_refused_before_memory_is_taken(tmp_path):
    huge = b"M\0\0\0A\0\0\0S\0\0\0K\0\0\0" + (2**31 - 1).to_bytes(4, "little") * 2
    (tmp_path / "a.msk").write_bytes(huge.ljust(1024, b"\0"))
    (tmp_path / "b.edf").write_bytes(b"{\nDataType = UnsignedByte ;\nDim_1 = 999999 ;\nDim_2 = 999999 ;\n}\n")
    (tmp_path / "c.bpm.xml").write_bytes(b'<BadPixelMap SizeX="999999" SizeY="999999"></BadPixelMap>')
    (tmp_path / "d.lst").write_text("# fixpix 1: 999999 rows x 999999 columns\nP 1 2\n")
    for name in ("a.msk", "b.edf", "c.bpm.xml", "d.lst"):
        with pytest.raises(UnreadableError, match="which no sensor has"):
            foreign.read(tmp_path / name, foreign.Sensor())
    (tmp_path / "e.bpm.xml").write_bytes(b'<!DOCTYPE x [<!ENTITY a "aaaa">]><BadPixelMap SizeX="4" SizeY="4"/>')
    with pytest.raises(UnreadableError, match="document type"):
        foreign.read(tmp_path / "e.bpm.xml", foreign.Sensor())


def test_a_mask_with_several_values_says_what_is_lost(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 0, 1], [4, 0, 0]]))
    listed, _ = foreign.read(tmp_path / "a.npy", foreign.Sensor())
    assert len(listed.planes[0]) == 2 and "2 different values" in listed.notes[0]


def test_boxes_are_few():
    """A whole column is one box, not a thousand."""
    bad = np.zeros((1000, 50), bool)
    bad[:, 7] = bad[3:5, 20:30] = True
    assert [box[:4] for box in shapes.boxes(DefectMap.of(bad).dq)] == [(0, 7, 1000, 1), (3, 20, 2, 10)]


# ---------------------------------------------------------------- real files


@pytest.mark.data
def test_a_real_phone_mask_of_matlab(data, tmp_path):
    listed, name = foreign.read(data / "maps/sidd_phone_DefectivePixelsMask.mat", foreign.Sensor())
    plane = listed.planes[0]
    assert name == "matlab" and plane.shape == (3044, 4048) and 1000 < len(plane) < 2_000_000
    foreign.write(tmp_path / "a.mat", [plane], foreign.Sensor(), "matlab")
    again, _ = foreign.read(tmp_path / "a.mat", foreign.Sensor())
    assert np.array_equal(again.planes[0].dq, plane.dq)
    scipy = pytest.importorskip("scipy.io")
    for path in (data / "maps/sidd_phone_DefectivePixelsMask.mat", tmp_path / "a.mat"):
        (theirs,) = (value for key, value in scipy.loadmat(path).items() if not key.startswith("__"))
        assert np.array_equal(theirs != 0, plane.bad)


@pytest.mark.data
def test_real_xml_maps_come_back_byte_for_byte_where_their_masks_follow_from_the_list(data, tmp_path):
    same = []
    for path in sorted((data / "maps").glob("*.bpm.xml")):
        listed, name = foreign.read(path, foreign.Sensor())
        assert name == "xml" and not listed.problems and not listed.notes
        assert len(listed.planes[0]) == path.read_text().count("<BadPixel X")
        foreign.write(tmp_path / path.name, list(listed.planes), foreign.Sensor(), "xml")
        same += [path.name] if (tmp_path / path.name).read_bytes() == path.read_bytes() else []
        again, _ = foreign.read(tmp_path / path.name, foreign.Sensor())
        assert np.array_equal(again.planes[0].dq, listed.planes[0].dq)
    assert len(same) == 3


def test_nothing_is_left_of_a_failed_run(run, tmp_path):
    (tmp_path / "l.lst").write_text("P 3 4\nP x y\n")
    code, _, err = run("maps", "import", "l.lst", "--shape", "10x20", "--out", "m.mask.fits")
    assert code == 1 and "line 2" in err and "l.lst" in err and sorted(p.name for p in tmp_path.iterdir()) == ["l.lst"]
    code, _, err = run("maps", "import", "l.lst", "--shape", "10x20", "--out", "m.mask.fits", "--skip-bad")
    assert code == 0 and "left out: line 2" in err and (tmp_path / "m.mask.fits").is_file()
    assert run("maps", "import", "l.lst", "--shape", "10x20", "--out", "m.mask.fits", "--skip-bad")[0] == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_an_error_of_ours_or_another_map(tmp_path, name):
    """Bytes changed, cut off, cut out: nothing but our errors leaves a reader."""
    rng = np.random.default_rng(sum(name.encode()))
    path, sensor = tmp_path / f"x{foreign.keeper(name).SUFFIX}", foreign.Sensor((13, 37), upward=True)
    foreign.write(path, [some()], sensor, name)
    whole = path.read_bytes()
    for round_ in range(24):
        data = bytearray(whole)
        place, other = sorted(rng.integers(0, len(data), 2))
        if round_ % 3 == 0:
            data[int(rng.integers(min(600, len(data))))] = int(rng.integers(256))
        data = (data[:place], data[:place] + data[other:], data)[round_ % 3 - 1]
        path.write_bytes(bytes(data))
        for how in (name, ""):
            with contextlib.suppress(FixpixError):
                listed, _ = foreign.read(path, sensor, how)
                assert all(plane.dq.ndim == 2 for plane in listed.planes)
