"""The camera's memory on disk: exact, shared by processes, flipped or refused where it does not fit."""

import numpy as np
import pytest
from astropy.io import fits
from conftest import scene

from fixpix_cli import kinds, maps
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.detection import Detection
from fixpix_cli.errors import MismatchError, StoreError, UnreadableError
from fixpix_cli.evidence import Bin, Counted, Evidence, Tally
from fixpix_cli.mosaic import Conditions, Identity
from fixpix_cli.suspects import FIELDS_1, FIELDS_2

IDENTITY = Identity("", "Cam", "7", (40, 50), "RGGB")
CONDITIONS = Conditions(60.0, 100.0, -5.0, "2026-01-01", "dark")


def part(n):
    rng = np.random.default_rng(n)
    probability = np.where(rng.random((40, 50)) < 0.1, rng.random((40, 50)), 0).astype(np.float32)
    bin_ = Bin.of(CONDITIONS)
    tally = Tally.of(scene(shape=(40, 50), seed=n), Detection.of(probability, 0.1))
    return Evidence({(0, bin_): tally}, {f"{n:064d}": Counted(f"{n:064d}", f"f{n}", bin_, CONDITIONS)})


def test_a_map_comes_back_bit_for_bit(tmp_path):
    path = tmp_path / "a.map.fits"
    written, known = maps.add(path, IDENTITY, [part(1), part(2)], row_order="TOP-DOWN")
    read = maps.read_map(path)
    assert not known and read.evidence == written.evidence == part(1) + part(2)
    assert read.identity == IDENTITY and read.row_order == "TOP-DOWN"
    assert np.array_equal(maps.read_mask(path).planes[0].dq, read.view(0).dq)


def older(path, version, evidence):
    """A map as fixpix wrote it before: format 1 without log-odds, format 2 without levels."""
    fields = FIELDS_1 if version == 1 else FIELDS_2
    primary = fits.PrimaryHDU()
    primary.header["FPXMAP"], primary.header["FPXMODEL"], primary.header["FPXSER"] = version, "Cam", "7"
    primary.header["FPXROWS"], primary.header["FPXCOLS"], primary.header["FPXCFA"] = 40, 50, "RGGB"
    hdus = [primary, fits.CompImageHDU(evidence.view(0).dq, name="DQ")]
    for (plane, bin_), tally in evidence.tallies.items():
        columns = [fits.Column(name.upper(), "K", array=tally.entries[name]) for name in fields]
        hdu = fits.BinTableHDU.from_columns(columns, name="EVIDENCE")
        hdu.header["PLANE"], hdu.header["NFRAMES"], hdu.header["BINKIND"] = plane, tally.frames, bin_.kind
        hdu.header["BINEXP"], hdu.header["BINGAIN"], hdu.header["BINTEMP"] = bin_.exposure, bin_.gain, bin_.temperature
        if version == 2:
            hdu.header["RATES"] = tally.rates
        hdus.append(hdu)
    frames = list(evidence.frames.values())
    texts = {"DIGEST": [f.digest for f in frames], "NAME": [f.name for f in frames], "KIND": ["dark"] * len(frames)}
    columns = [fits.Column(name, "64A", array=np.array(values, "U64")) for name, values in texts.items()]
    for name in ("exposure", "gain", "temperature"):
        columns.append(fits.Column(name.upper(), "D", array=[getattr(f.conditions, name) for f in frames]))
    columns.append(fits.Column("TIME", "40A", array=np.array(["2026-01-01"] * len(frames), "U40")))
    hdus.append(fits.BinTableHDU.from_columns(columns, name="FRAMES"))
    fits.HDUList(hdus).writeto(path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_map_of_an_older_format_is_read_and_grows(tmp_path, version):
    path, whole = tmp_path / "old.map.fits", part(1)
    older(path, version, whole)
    (tally,), (full,) = maps.read_map(path).evidence.tallies.values(), whole.tallies.values()
    assert np.array_equal(tally.mean, full.mean)
    assert (tally.rates == 0) is (version == 1) and not tally.moves
    assert not tally.entries["measured"].any() and np.isnan(kinds.level(tally.entries)).all()
    assert tally.view().bad.any() and (tally.view().dq[tally.view().bad] != int(DQ.DO_NOT_USE)).all()
    grown, known = maps.add(path, IDENTITY, [part(1), part(2)])
    assert known == set(part(1).frames) and len(grown.evidence.frames) == 2
    assert maps.read_map(path).evidence == grown.evidence
    with fits.open(path) as hdus:
        assert hdus[0].header["FPXMAP"] == 3
    (tally,) = grown.evidence.tallies.values()
    times = tally.entries["suspected"], tally.entries["measured"]
    assert (times[1] <= times[0]).all() and times[1].sum() == len(part(2).tallies[0, Bin.of(CONDITIONS)].entries)


def test_a_map_of_a_newer_format_is_refused(tmp_path):
    older(tmp_path / "a.map.fits", 1, part(1))
    fits.setval(tmp_path / "a.map.fits", "FPXMAP", value=4)
    with pytest.raises(StoreError, match=r"a\.map\.fits: has map format 4.*update fixpix"):
        maps.read_map(tmp_path / "a.map.fits")


def test_a_frame_that_is_known_is_left_out(tmp_path):
    path = tmp_path / "a.map.fits"
    maps.add(path, IDENTITY, [part(1)])
    written, known = maps.add(path, IDENTITY, [part(1), part(2)])
    assert known == set(part(1).frames) and written.evidence == part(1) + part(2)


def test_another_camera_is_refused(tmp_path):
    path = tmp_path / "a.map.fits"
    maps.add(path, IDENTITY, [part(1)])
    with pytest.raises(StoreError, match="Cam #7"):
        maps.add(path, Identity("", "Other", "", (40, 50)), [part(2)])


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "a.map.fits"
    maps.add(path, IDENTITY, [part(1)])
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(StoreError, match=r"a\.map\.fits"):
        maps.read_map(path)
    (tmp_path / "t.fits").write_text("no")
    with pytest.raises(UnreadableError, match=r"t\.fits"):
        maps.read_mask(tmp_path / "t.fits")


def test_masks_fit_flip_or_are_refused(tmp_path):
    dq = np.zeros((6, 8), np.int32)
    dq[0, 3] = int(DQ.DO_NOT_USE | DQ.HOT)
    maps.write_mask(tmp_path / "m.fits", [DefectMap(dq)], row_order="TOP-DOWN")
    mask = maps.read_mask(tmp_path / "m.fits")
    assert np.array_equal(maps.for_frame(mask, [(6, 8)], "TOP-DOWN")[0][0].dq, dq)
    flipped, notes = maps.for_frame(mask, [(6, 8)], "BOTTOM-UP")
    assert flipped[0].dq[5, 3] == dq[0, 3] and "flipped" in notes[0]
    with pytest.raises(MismatchError, match=r"6 x 8|8 x 6"):
        maps.for_frame(mask, [(8, 6)], "")


def test_several_planes(tmp_path):
    planes = [DefectMap(np.full((4, 5), n, np.int32)) for n in (0, 1)]
    maps.write_mask(tmp_path / "a.fits", planes, keys=(1, 3), per_key=True)
    maps.write_mask(tmp_path / "b.fits", planes, keys=(0, 1))
    for name in ("a", "b"):
        read = maps.read_mask(tmp_path / f"{name}.fits").planes
        assert [np.array_equal(r.dq, p.dq) for r, p in zip(read, planes, strict=True)] == [True, True]


def test_the_store_finds_a_camera_by_its_identity(tmp_path):
    store = maps.Store(tmp_path)
    assert store.find(IDENTITY) is None
    maps.add(store.path_of(IDENTITY), IDENTITY, [part(1)])
    same = Identity("", "Cam", "7", (40, 50), "MONO")
    assert store.find(same) == store.maps()[0]
    assert store.find(Identity("", "Cam", "8", (40, 50))) is None
