"""Which camera and under which conditions, from headers as cameras and programs write them."""

import numpy as np
import pytest
from conftest import DATA, write_fits

from fixpix_cli import files, maps
from fixpix_cli.mosaic import Conditions

SAMPLES = np.full((20, 30), 500, np.uint16)

ASI = {
    "CREATOR": "ZWO ASIAIR Plus", "XORGSUBF": 0, "YORGSUBF": 0, "XBINNING": 1, "YBINNING": 1, "CCDXBIN": 1,
    "CCDYBIN": 1, "XPIXSZ": 3.76, "YPIXSZ": 3.76, "IMAGETYP": "Dark", "EXPOSURE": 300.0, "EXPTIME": 300.0,
    "CCD_TEMP": -9.8,
    "DATE_OBS": "2026-02-11T21:03:04.123456", "INSTRUME": "ZWO ASI2600MC Pro", "GUIDECAM": "ZWO ASI120MM Mini",
    "BAYERPAT": "RGGB", "GAIN": 100, "OFFSET": 50,
}  # fmt: skip
SBIG = {
    "DATE_OBS": "2017-09-08T22:48:01.984", "TIME_OBS": "22:48:01.984", "SET_TEMP": -5.0, "IMAGETYP": "Dark Frame",
    "XORGSUBF": 0, "YORGSUBF": 0, "XBINNING": 1, "CCDXBIN": 1, "YBINNING": 1, "CCDYBIN": 1, "CCD_TEMP": -5.232,
    "TEMPERAT": -5.232, "INSTRUME": "SBIG STL-1001 3 CCD Camera", "EGAIN": 2.06, "EXPTIME": 60.0, "EXPOSURE": 60.0,
}  # fmt: skip
CANON = {"INSTRUME": "Canon EOS 100D", "CAMSN": "012070048413", "ISO": 100, "EXPTIME": 120.4, "CAMTEMP": "11 C"}


def told(tmp_path, name="a", **cards):
    frame = files.load(write_fits(tmp_path / f"{name}.fits", SAMPLES, **cards))
    return frame.identity, frame.conditions


def test_zwo(tmp_path):
    identity, conditions = told(tmp_path, **ASI)
    assert identity.camera == "ZWO ASI2600MC Pro" and identity.cfa == "RGGB" and identity.binning == (1, 1)
    assert conditions == Conditions(300.0, 100.0, -9.8, "2026-02-11T21:03:04.123456", "dark")
    again, unity = told(tmp_path, **(ASI | {"GAIN": 0}))
    assert unity.gain == 0 and maps.key_of(again) == maps.key_of(identity)


def test_sbig_and_canon(tmp_path):
    identity, conditions = told(tmp_path, **SBIG)
    assert identity.camera == "SBIG STL-1001 3 CCD Camera" and identity.readout == ""
    assert conditions == Conditions(60.0, 2.06, -5.232, "2017-09-08T22:48:01.984", "dark")
    identity, conditions = told(tmp_path, **CANON)
    assert identity.camera == "Canon EOS 100D #012070048413"
    assert conditions == Conditions(120.4, 100.0, 11.0)


@pytest.mark.parametrize(
    "cards",
    [
        {"XBINNING": 2, "YBINNING": 2},
        {"XORGSUBF": 100, "YORGSUBF": 40},
        {"READOUTM": "Fast"},
        {"INSTRUME": "ZWO ASI294MC Pro"},
        {"CAMSN": "1234"},
        {"DETECTOR": "S23"},
    ],
    ids=str,
)
def test_another_sensor_or_way_to_read_it_out_is_another_map(tmp_path, cards):
    """Lost otherwise: the map of one sensor, spoilt by another's defects."""
    one, other = told(tmp_path, **ASI)[0], told(tmp_path, **(ASI | cards))[0]
    assert maps.key_of(one) != maps.key_of(other)
    assert maps.differences(one, other)


@pytest.mark.parametrize(
    "card, seconds",
    [
        ((500, "[ms] exposure"), 0.5), ((2500.0, "[us] exposure"), 2.5e-3), ((5, "[min]"), 300.0), ((5, "[s]"), 5.0),
        ((5, "exposure in seconds"), 5.0),
    ],
    ids=str,
)  # fmt: skip
def test_units_of_the_exposure(tmp_path, card, seconds):
    """As industrial cameras (Basler) count it: the unit stands where the FITS standard puts it."""
    _, conditions = told(tmp_path, INSTRUME="Basler acA1920-40gm", EXPTIME=card)
    assert conditions.exposure == pytest.approx(seconds)
    assert told(tmp_path, EXPOINUS=32000)[1].exposure == pytest.approx(0.032)


def write_tiff(path, exif=(), **tags):
    import tifffile

    extra = [(code, "s" if isinstance(value, (str, bytes)) else "I", 0, value, True) for code, value in exif]
    tifffile.imwrite(path, SAMPLES, photometric="minisblack", extratags=extra, metadata=None, **tags)
    frame = files.load(path)
    return frame.identity, frame.conditions


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><Camera:BandName>Blue</Camera:BandName>'
    "<Camera:RigCameraIndex>{0}</Camera:RigCameraIndex><Camera:SensorTemperature>32.857</Camera:SensorTemperature>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_the_cameras_of_a_multispectral_rig_are_several(tmp_path):
    """They share make, model, serial number and size, and one map would hold the defects of all five."""
    found = [
        write_tiff(
            tmp_path / f"{n}.tif",
            [(271, "MicaSense"), (272, "RedEdge"), (50735, "1777777"), (700, XMP.format(n).encode())],
        )
        for n in range(2)
    ]
    (one, conditions), (two, _) = found
    assert one.camera == two.camera == "MicaSense RedEdge #1777777" and conditions.temperature == pytest.approx(32.857)
    assert maps.key_of(one) != maps.key_of(two) and maps.differences(one, two) == [
        "read-out camera 0 instead of camera 1"
    ]


def test_basler_in_ome_tiff(tmp_path):
    ome = (
        '<OME><Instrument><Detector Manufacturer="Basler" Model="acA1920-40gm" SerialNumber="22334455"/></Instrument>'
        '<Image><Pixels><Plane ExposureTime="20" ExposureTimeUnit="ms"/></Pixels></Image></OME>'
    )
    identity, conditions = write_tiff(tmp_path / "a.tif", description=ome)
    assert identity.camera == "Basler acA1920-40gm #22334455" and conditions.exposure == pytest.approx(0.02)


def test_the_lenses_of_a_phone_are_cameras_of_their_own(tmp_path):
    """The three back cameras of a phone share model and size; those of a camera with a mount share one sensor."""

    def lens(name, model, text):
        """A TIFF with LensModel in an EXIF directory, which tifffile cannot write: a page of its own stands in."""
        import tifffile

        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as tiff:
            extra = [(271, "s", 0, "Maker", True), (272, "s", 0, model, True), (65000, "I", 1, 0, True)]
            tiff.write(SAMPLES, photometric="minisblack", extratags=extra, metadata=None)
            tiff.write(
                SAMPLES[:1, :1], photometric="minisblack", extratags=[(42036, "s", 0, text, True)], metadata=None
            )
        with tifffile.TiffFile(path, mode="r+") as tiff:
            first, second = tiff.pages[0], tiff.pages[1].offset
            pointer = first.tags[65000]
            pointer.overwrite(second)
            tiff.filehandle.seek(pointer.offset)
            tiff.filehandle.write((34665).to_bytes(2, "little"))
            tiff.filehandle.seek(first.offset + 2 + 12 * len(first.tags))
            tiff.filehandle.write(bytes(4))  # the stand-in is no page
        return files.load(path).identity

    wide = lens("w", "Phone 13", "Phone 13 back triple camera 5.7mm f/1.5")
    tele = lens("t", "Phone 13", "Phone 13 back triple camera 9mm f/2.8")
    fifty, eighty = (lens(f"m{mm}", "EOS", f"EF{mm}mm f/1.8") for mm in (50, 85))
    assert maps.key_of(wide) != maps.key_of(tele) and maps.key_of(fifty) == maps.key_of(eighty)


@pytest.mark.data
@pytest.mark.parametrize(
    "name, camera, readout, conditions",
    [
        ("darks/stl1001_darks-expos1-Neg5-Vis.00000000.DARK.FIT", "SBIG STL-1001 3 CCD Camera", "",
         (60.0, 2.06, -5.23, "2017-09-08T20:48:41.901", "dark")),
        ("fits/canon_100d_unsolved.fits", "unknown camera #012070048413", "",
         (120.4, 100, 11, "2016-09-09T08:12:26", None)),
        ("fits/exotic_HATP-32171220013343.FITS", "Main", "", (60.0, None, -2.15, "2017-12-19T18:33:43.317-0700", None)),
        ("dng/gopro_hero6_adobe_ljpeg.dng", "GoPro HERO6 Black #C32213DVT14025", "",
         (1 / 460, 100, None, "2016:01:01 23:07:27", None)),
        ("lab/rededge_IMG_0000_4.tif", "MicaSense RedEdge #1777777", "camera 3",
         (0.0018, 100, None, "2017:10:19 20:40:39", None)),
        ("lab/sequoia_IMG_180413_080658_0000_GRE.TIF", "Parrot Sequoia #PI040378AA6C000181", "camera 0",
         (0.003, 206, 32.857, "2018:04:13 08:06:58", None)),
        ("raw/canon_s40_CRW_0101.CRW", "Canon PowerShot S40", "", (1 / 100.86, 50, None, "2021-04-08T14:51:12", None)),
        ("raw/kodak_dc120_P003909.KDC", "Eastman Kodak Company Kodak DC120 ZOOM Digital Camera", "",
         (0.0037, 160, None, "1994-01-02T15:54:19", None)),
    ],
)  # fmt: skip
def test_real_files(name, camera, readout, conditions):
    frame = files.load(DATA / name)
    assert (frame.identity.camera, frame.identity.readout) == (camera, readout)
    told = frame.conditions
    for mine, value in zip((told.exposure, told.gain, told.temperature), conditions[:3], strict=True):
        assert mine == (None if value is None else pytest.approx(value, rel=2e-3))
    assert (told.time, told.kind) == conditions[3:]
