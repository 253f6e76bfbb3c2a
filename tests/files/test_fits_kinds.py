"""FITS of all kinds: series and planes, scaled and blank pixels, careless headers, what repaired files say."""

import gzip

import numpy as np
import pytest
from conftest import json_lines, write_fits

from fixpix_cli import files, maps
from fixpix_cli.cfa import Cfa
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.errors import RefusedError, UnreadableError
from fixpix_cli.mosaic import Assume, Edit


def image(dtype=np.uint16, shape=(60, 80), seed=1):
    return np.random.default_rng(seed).integers(1300, 1400, shape).astype(dtype)


def changed(samples, *places):
    out = samples.copy()
    for place in places:
        out[place] = 1234
    return out


def differing(one, two):
    """Byte offsets in which two files of one length differ."""
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (one, two))
    assert len(old) == len(new)
    return np.flatnonzero(old != new)


def saved(source, target, edit, assume=Assume()):  # noqa: B008 (frozen value)
    """Rewrite a frame after `edit(number, samples)` has changed copies of its planes."""
    frame = files.load(source, assume)
    edits = [Edit.between(m.samples, edit(n, m.samples)) for n, m in enumerate(frame.mosaics)]
    return frame, files.save(frame, edits, target)


# ---------------------------------------------------------------- series, planes, HDUs


def test_a_cube_is_a_series_or_planes(tmp_path):
    """Lost otherwise: a video of one camera makes a map with one plane per frame, which fits nothing else."""
    cube = image(shape=(4, 60, 80))
    source, target = write_fits(tmp_path / "c.fits", cube), tmp_path / "o.fits"
    frame, _ = saved(source, target, lambda n, s: changed(s, (5, 6)) if n == 2 else s)
    assert frame.moments == 4 and frame.planes == 1 and frame.identity.planes == 1
    places = differing(source, target)
    assert set(((places - 2880) // 2).tolist()) == {2 * 60 * 80 + 5 * 80 + 6}
    planes = files.load(source, Assume(planes=True))
    assert planes.moments == 1 and planes.identity.planes == 4 and planes.keys == (0, 0, 0, 0)
    assert all(np.array_equal(m.samples, c) for m, c in zip(planes.mosaics, cube, strict=True))


def test_one_layer_is_an_image_and_colours_are_planes(tmp_path):
    one = files.load(write_fits(tmp_path / "1.fits", image(shape=(1, 1, 60, 80))))
    assert one.moments == 1 and one.mosaics[0].shape == (60, 80) and one.identity.planes == 1
    rgb = files.load(write_fits(tmp_path / "3.fits", image(shape=(3, 60, 80)), CTYPE3="RGB"))
    assert rgb.moments == 1 and rgb.identity.planes == 3


def test_several_hdus_of_series_and_the_choice_of_hdus(tmp_path):
    from astropy.io import fits

    source, target = tmp_path / "m.fits", tmp_path / "o.fits"
    one, two = image(shape=(3, 60, 80)), image(np.float32, (3, 60, 80), 2)
    flat = image(np.int32, (7, 9))
    fits.HDUList([fits.PrimaryHDU(one), fits.ImageHDU(two, name="B")]).writeto(source, checksum=True)
    frame, _ = saved(source, target, lambda n, s: changed(s, (n, n)))
    assert frame.keys == (0, 1) and frame.moments == 3 and frame.identity.planes == 2
    with fits.open(target, checksum=True) as hdus:
        for layer in range(3):
            assert np.argwhere(hdus[0].data[layer] != one[layer]).tolist() == [[2 * layer, 2 * layer]]
            assert np.argwhere(hdus[1].data[layer] != two[layer]).tolist() == [[2 * layer + 1, 2 * layer + 1]]
    with fits.open(source, mode="append") as hdus:
        hdus.append(fits.ImageHDU(flat, name="C"))
    mixed = files.load(source)
    assert mixed.moments == 1 and mixed.keys == (0, 0, 0, 1, 1, 1, 2) and "--hdu" in mixed.notes[0]
    chosen = files.load(source, Assume(hdu=(2,)))
    assert chosen.keys == (2,) and np.array_equal(chosen.mosaics[0].samples, flat) and not chosen.notes
    with pytest.raises(UnreadableError, match="HDU 5 is no image; its images are 0, 1, 2"):
        files.load(source, Assume(hdu=(5,)))


def test_series_of_different_shapes_are_refused(tmp_path):
    from astropy.io import fits

    fits.HDUList([fits.PrimaryHDU(image(shape=(2, 60, 80))), fits.ImageHDU(image(shape=(2, 9, 9)))]).writeto(
        tmp_path / "m.fits"
    )
    with pytest.raises(RefusedError, match=r"m\.fits.*--hdu"):
        files.load(tmp_path / "m.fits")


def test_the_command_line_takes_series_planes_and_hdus(run, tmp_path):
    """Lost otherwise: --hdu and --planes of the contract do nothing, or masks no longer fit their frames."""
    from astropy.io import fits

    cube = image(shape=(3, 60, 80))
    write_fits(tmp_path / "c.fits", cube, INSTRUME="Cam", IMAGETYP="dark")
    cube[:, 30, 30] = 60000
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(cube), fits.ImageHDU(image())]).writeto(tmp_path / "m.fits")
    assert run("inject", "c.fits", "--out", "hurt", "--rate", "0.5%", "--kind", "fixed", "--seed", 2)[0] == 0
    truth = maps.read_mask(tmp_path / "hurt/c.truth.fits").planes
    assert len(truth) == 3 and len(truth[0]) > 10
    assert run("calibrate", "hurt/c.fits")[0] == 0
    assert '"frames": 3' in run("maps", "list", "--json")[1]
    assert run("correct", "hurt/c.fits", "--out", "a", "--dq")[0] == 0
    with fits.open(tmp_path / "a/c.fits") as hdus:
        assert hdus["DQ"].data.shape == (3, 60, 80) and (hdus[0].data[hdus["DQ"].data & 1 == 1] < 1500).all()
    for options, want in ((["--hdu", 1], 3), (["--hdu", "1", "--planes"], 3), (["--hdu", "1,2"], 4)):
        code, out, _ = run("correct", "m.fits", "--auto", "--out", "b", "--overwrite", "--json", *options)
        assert code == 0 and json_lines(out)[0][0]["rate"] == json_lines(out)[0][0]["defects"] / (want * 4800)
        assert (fits.getdata(tmp_path / "b/m.fits", 1)[:, 30, 30] < 1500).all()
    assert run("detect", "m.fits", "--hdu", "x")[0] == 2
    code, out, _ = run("detect", "m.fits", "--hdu", 7, "--json")
    assert code == 1 and "HDU 7 is no image" in json_lines(out)[0][0]["error"]


# ---------------------------------------------------------------- scaled and blank values


@pytest.mark.parametrize(("zero", "step"), [(100.0, 1.0), (-5.5, 0.25), (32768.5, 1.0), (0.0, 1e-3)])
def test_scaled_integers_keep_their_codes(tmp_path, zero, step):
    """Lost otherwise: a repair rounds every pixel through floats, or the level keywords of a scaled file mislead."""
    source, target = write_fits(tmp_path / "a.fits", image(np.int16)), tmp_path / "o.fits"
    spare = b"EXTEND  =                    T".ljust(80)
    whole = source.read_bytes()
    assert whole.count(spare) == 1 and whole.count(b"END".ljust(80)) == 1
    cards = f"BSCALE  = {step:>20}".ljust(80) + f"BZERO   = {zero:>20}".ljust(80)
    source.write_bytes(whole.replace(spare, cards[:80].encode()).replace(
        b"END".ljust(160), cards[80:].encode() + b"END".ljust(80)))  # fmt: skip
    frame, _ = saved(source, target, lambda n, s: changed(s, (3, 4)), Assume(black=(zero + 7 * step,)))
    mosaic = frame.mosaics[0]
    assert np.array_equal(mosaic.samples, image(np.int16)) and mosaic.black[0][0] == pytest.approx(7, abs=1e-6)
    assert frame.assumed[-1] == f"white {zero + 32767 * step:g}"
    assert set(((differing(source, target) - 2880) // 2).tolist()) == {3 * 80 + 4}


def test_blank_pixels_are_no_data(tmp_path):
    """Lost otherwise: gaps of a mosaic are 'repaired', or poison their neighbours' repairs."""
    samples = image(np.uint16)
    samples[10:20, 10:20] = 0
    source, target = write_fits(tmp_path / "a.fits", samples, BLANK=-32768), tmp_path / "o.fits"
    frame = files.load(source)
    seen = frame.mosaics[0].samples
    assert seen.dtype == np.float32 and np.isnan(seen[10:20, 10:20]).all() and np.isnan(seen).sum() == 100
    after = seen.copy()
    after[5, 5], after[6, 6], after[7, 7] = 1333.4, -9, np.nan
    files.save(frame, [Edit.between(seen, after)], target)
    from astropy.io import fits

    with fits.open(target, do_not_scale_image_data=True) as hdus:
        stored = hdus[0].data.astype(int) + 32768
    assert (stored[10:20, 10:20] == 0).all()
    assert stored[5, 5] == 1333 and stored[6, 6] == 1 and stored[7, 7] == 0
    assert np.count_nonzero(stored != samples) == 3


def test_blank_pixels_stay_through_the_command_line(run, tmp_path):
    samples = image(np.int32)
    samples[10:20, 10:20] = -99
    samples[40, 40] = 90000
    source = write_fits(tmp_path / "a.fits", samples, BLANK=-99)
    assert run("correct", source, "--auto")[0] == 0
    from astropy.io import fits

    after = fits.open(tmp_path / "repaired/a.fits", do_not_scale_image_data=True)[0].data
    assert (after[10:20, 10:20] == -99).all() and after[40, 40] < 1500
    assert 1 <= np.count_nonzero(after != samples) <= 3


def test_floats_with_gaps_keep_every_bit(tmp_path):
    samples = image(np.float32)
    samples[3, 3] = np.array(0x7FC12345, np.uint32).view(np.float32)
    samples[4, 4] = np.inf
    source, target = write_fits(tmp_path / "a.fits", samples), tmp_path / "o.fits"
    saved(source, target, lambda n, s: changed(s, (9, 9)))
    assert set(((differing(source, target) - 2880) // 4).tolist()) == {9 * 80 + 9}


# ---------------------------------------------------------------- careless headers


def crlf(cards):
    return [card[:78] + "\r\n" for card in cards]


CARELESS = {
    "latin-1": lambda cards: [*cards, "OBSERVER= 'Jérôme Müller'".ljust(80)],
    "comma": lambda cards: [*cards, "EXPTIME =                 30,5".ljust(80)],
    "lower case": lambda cards: [*cards, "exptime =                 30.5".ljust(80)],
    "crlf": crlf,
    "no value": lambda cards: [*cards, "GAIN    =".ljust(80), "JUNK".ljust(80), "=".ljust(80)],
    "long key": lambda cards: [*cards, "A_VERY_LONG_KEYWORD = 3".ljust(80)],
    "tabs": lambda cards: [*cards, "NOTE    =\t'a\tb'".ljust(80)],
    "twice": lambda cards: [
        *cards,
        "EXPTIME =                 30.5".ljust(80),
        "EXPTIME =                   60".ljust(80),
    ],
    "nul padding": lambda cards: [*cards, "NOTE    = 'x'".ljust(80, "\0")],
}


@pytest.mark.parametrize("case", CARELESS)
def test_careless_headers_survive_byte_for_byte(tmp_path, case):
    """Lost otherwise: one odd card and a program that 'mends' it changes the original."""
    source, target = write_fits(tmp_path / "a.fits", image()), tmp_path / "o.fits"
    whole = source.read_bytes()
    cards = [whole[c : c + 80].decode("latin-1") for c in range(0, whole.index(b"END".ljust(80)), 80)]
    header = "".join([*CARELESS[case](cards), "END".ljust(80)])
    source.write_bytes(header.ljust(2880).encode("latin-1") + whole[2880:])
    frame, _ = saved(source, target, lambda n, s: changed(s, (3, 4)))
    assert np.array_equal(frame.mosaics[0].samples, image())
    if "EXPTIME" in header.upper():
        assert frame.conditions.exposure == 30.5
    assert set(((differing(source, target) - 2880) // 2).tolist()) == {3 * 80 + 4}


# ---------------------------------------------------------------- what headers say


XTRANS = "GBGGRGRGRBGBGBGGRGGRGGBGBGBRGRGRGGBG"


@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, 0), (2, 5), (-1, 7)])
@pytest.mark.parametrize("order", ["TOP-DOWN", "BOTTOM-UP"])
def test_patterns_of_36_letters_shift_and_turn(tmp_path, y, x, order):
    path = write_fits(
        tmp_path / "a.fits", image(shape=(61, 80)), BAYERPAT=XTRANS, XBAYROFF=x, YBAYROFF=y, ROWORDER=order
    )
    cfa = files.load(path).mosaics[0].cfa
    base = Cfa.parse(XTRANS)
    for row in range(61):
        anchored = row if order == "TOP-DOWN" else 60 - row
        assert [cfa.colour(row, c) for c in range(6)] == [base.colour(anchored + y, c + x) for c in range(6)]


@pytest.mark.parametrize(
    ("cards", "field", "want"),
    [
        ({"EXPOSURE": "30,5"}, "exposure", 30.5),
        ({"EXPTIME": "060.00 s"}, "exposure", 60),
        ({"EGAIN": 2.06}, "gain", 2.06),
        ({"EGAIN": 2.06, "GAIN": 120}, "gain", 120),
        ({"ISOSPEED": 800}, "gain", 800),
        ({"CAMTEMP": "271.0 K"}, "temperature", -2.15),
        ({"CAMTEMP": "20 K"}, "temperature", -253.15),
        ({"CAMTEMP": "13 C"}, "temperature", 13),
        ({"CCD-TEMP": "14 F"}, "temperature", -10),
        ({"SET-TEMP": -20.0, "CCD-TEMP": -19.5}, "temperature", -19.5),
        ({"DATE-OBS": "2024-05-06", "TIME-OBS": "07:08:09"}, "time", "2024-05-06T07:08:09"),
        ({"DATE-OBS": "2024-05-06T01:02:03", "TIME-OBS": "07:08:09"}, "time", "2024-05-06T01:02:03"),
        ({"IMAGETYP": "Bias Frame"}, "kind", "bias"),
    ],
)
def test_conditions_have_many_spellings(tmp_path, cards, field, want):
    frame = files.load(write_fits(tmp_path / "a.fits", image(), **cards))
    assert getattr(frame.conditions, field) == (pytest.approx(want) if isinstance(want, float) else want)


@pytest.mark.data
def test_real_headers_speak(data):
    panoptes = files.load(data / "fits/canon_100d_solved.fits.fz")
    assert panoptes.identity.serial == "012070048413" and panoptes.conditions.temperature == 13
    assert panoptes.conditions.gain == 100 and panoptes.conditions.exposure == 120.4
    sbig = files.load(data / "darks/stl1001_darks-expos60s-Neg5-Vis.00000000.DARK.FIT")
    assert sbig.conditions.kind == "dark" and sbig.conditions.gain == 2.06 and sbig.conditions.exposure == 60
    kelvin = files.load(data / "fits/exotic_HATP-32171220013343.FITS")
    assert kelvin.conditions.temperature == pytest.approx(-2.15) and kelvin.conditions.exposure == 60


# ---------------------------------------------------------------- what repaired files say


def said():
    return files.Provenance("9.9", 3, "median", "cam.map.fits")


def sources(folder):
    """One frame in each packing, with a checksum."""
    from astropy.io import fits

    plain, zipped, tiled = folder / "a.fits", folder / "b.fits.gz", folder / "c.fits.fz"
    fits.PrimaryHDU(image()).writeto(plain, checksum=True)
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image())]).writeto(tiled, checksum=True)
    return plain, zipped, tiled


@pytest.mark.parametrize("number", [0, 1, 2])
def test_provenance_and_flags_in_every_packing(tmp_path, number):
    """Lost otherwise: nobody can tell a repaired file, or which of its pixels are made up."""
    from astropy.io import fits

    source = sources(tmp_path)[number]
    target = tmp_path / f"o{source.name}"
    frame = files.load(source)
    assert not frame.notes
    before = frame.mosaics[0].samples
    after = changed(before, (3, 4), (5, 6))
    flags = DefectMap.of(before != after, DQ.HOT)
    extension = maps.dq_extensions([flags], keys=(0,), per_key=True)
    edits = [Edit.between(before, after)]
    assert files.save(frame, edits, target, provenance=said(), extension=extension) == ()
    with fits.open(target, checksum=True) as hdus:
        hdus.verify("exception")
        image_hdu = hdus[1 if number == 2 else 0]
        assert np.array_equal(image_hdu.data, after)
        assert image_hdu.header["FPXVER"] == "9.9" and image_hdu.header["FPXNPIX"] == 3
        assert image_hdu.header["FPXMAP"] == "cam.map.fits" and "9.9" in str(image_hdu.header["HISTORY"])
        assert np.array_equal(hdus["DQ"].data, flags.dq) and "DQ_DEF" in hdus
    again = files.load(target)
    assert again.notes == ("was repaired before by fixpix 9.9 (3 pixels)",) and len(again.mosaics) == 1
    if number == 1:
        assert target.read_bytes()[:2] == b"\x1f\x8b"


def test_a_second_repair_renews_the_keys_and_keeps_the_history(tmp_path):
    from astropy.io import fits

    source = sources(tmp_path)[0]
    one, two = tmp_path / "1.fits", tmp_path / "2.fits"
    extension = maps.dq_extensions([DefectMap.empty((60, 80))], keys=(0,), per_key=True)
    frame = files.load(source)
    edit = Edit.between(image(), changed(image(), (3, 4)))
    files.save(frame, [edit], one, provenance=said(), extension=extension)
    later = files.Provenance("10.0", 8, "mlp")
    notes = files.save(files.load(one), [edit], two, provenance=later, extension=extension)
    assert notes == ("this file has a DQ extension already; none was added",)
    with fits.open(two, checksum=True) as hdus:
        header = hdus[0].header
        assert header["FPXVER"] == "10.0" and header["FPXNPIX"] == 8 and header.count("FPXVER") == 1
        assert "9.9" in str(header["HISTORY"]) and "10.0" in str(header["HISTORY"])


def test_extensions_go_before_what_careless_writers_leave(tmp_path):
    """Lost otherwise: the DQ extension lies behind junk, where no reader finds it."""
    from astropy.io import fits

    source, target = write_fits(tmp_path / "a.fits", image()), tmp_path / "o.fits"
    extension = maps.dq_extensions([DefectMap.empty((60, 80))], keys=(0,), per_key=True)
    whole = source.read_bytes()
    for data, tail in ((whole + b"junk", b"junk"), (whole[: 2880 + 9600], b"")):
        source.write_bytes(data)
        frame = files.load(source)
        files.save(
            frame, [Edit.between(image(), changed(image(), (3, 4)))], target, extension=extension, overwrite=True
        )
        assert "DQ" in fits.open(target) and target.read_bytes().endswith(tail)


def test_other_containers_say_that_they_have_no_place_for_flags(run, tmp_path):
    import tifffile

    samples = image()
    samples[30, 30] = 60000
    tifffile.imwrite(tmp_path / "a.tif", samples)
    code, out, err = run("correct", "a.tif", "--auto", "--dq")
    assert code == 0 and "DQ extension" in out + err


def test_a_repaired_file_is_named_on_the_command_line(run, tmp_path):
    from astropy.io import fits

    samples = image()
    samples[30, 30] = 60000
    write_fits(tmp_path / "a.fits", samples)
    assert run("correct", "a.fits", "--auto", "--provenance", "--dq")[0] == 0
    with fits.open(tmp_path / "repaired/a.fits") as hdus:
        assert hdus["DQ"].data[30, 30] & 1 and hdus["DQ"].data[30, 30] & DQ.HOT
        assert np.count_nonzero(hdus["DQ"].data) == hdus[0].header["FPXNPIX"]
        history = str(hdus[0].header["HISTORY"])
        assert "threshold 0.3" in history and "sha256" in history
    _, out, err = run("correct", "repaired/a.fits", "--auto", "--out", "again")
    assert "was repaired before by fixpix" in out + err
