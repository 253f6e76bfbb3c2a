"""FITS headers read without astropy. Lost otherwise: a frame is read with another camera, offset or level, and so
repaired in the wrong place."""

import numpy as np
import pytest
from astropy.io import fits
from conftest import ROOT, write_fits

from fixpix_cli import files, fitsheader


def agrees(path):
    """Compare every card that our reader gives, and every place, with astropy; how many HDUs there were."""
    ours = fitsheader.read(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        assert ours is not None and len(ours) == len(hdus)
        for mine, theirs in zip(ours, hdus, strict=True):
            info = theirs.fileinfo()
            assert mine.fileinfo() == {key: info[key] for key in ("hdrLoc", "datLoc", "datSpan")}
            for key, value in mine.header.items():
                assert value == theirs.header[key] and type(value) is type(theirs.header[key]), key
            said = {card.keyword for card in theirs.header.cards} - {"COMMENT", "HISTORY", ""}
            assert set(mine.header) == said
            assert mine.name == str(theirs.header.get("EXTNAME", "")).strip().upper()
        return len(hdus)


def test_cards_of_every_kind_are_read_as_astropy_reads_them(tmp_path):
    path = tmp_path / "a.fits"
    cards = {"EXPTIME": 1.5e-3, "GAIN": 120, "INSTRUME": "it's a 'CCD'", "FLAG": True, "EMPTY": "", "SIGNED": -7,
             "LARGE": 1e22, "TRAIL": "a  ", "BAYERPAT": ("RGGB", "with / a comment")}  # fmt: skip
    write_fits(path, np.zeros((3, 4), np.uint16), **cards)
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(np.zeros((2, 3, 4), np.float32), name="two"))
        hdus.append(fits.BinTableHDU.from_columns([fits.Column("X", "J", array=[1, 2])]))
    assert agrees(path) == 3


@pytest.mark.parametrize(
    "card",
    ["LONG    = 'abc&'", "LOW     = nan", "lower   = 1", "GAP     =", "COMPLEX = (1.0, 2.0)", "GROUPS  = T",
     "NOQUOTE = 'abc", "TWO     = 1 2", "HIERARCH A B = 1", "XTENSION= 'IMAGE'", "AXIS    = 1.", "SHIFT =  3"],
)  # fmt: skip
def test_what_is_not_common_is_left_to_astropy_or_agrees_with_it(tmp_path, card):
    """A card of each kind in place of a comment."""
    path = tmp_path / "a.fits"
    write_fits(path, np.zeros((3, 4), np.uint16), GAIN=3)
    data = path.read_bytes()
    place = data.index(b"GAIN    ")
    new = card.encode().ljust(80)
    if card.startswith("LONG"):
        new += b"CONTINUE  'def'".ljust(80)
    path.write_bytes(data[:place] + new + data[place + len(new) :])
    if fitsheader.read(path) is not None:
        agrees(path)
        assert card.startswith("AXIS")


@pytest.mark.parametrize("damage", ["cut header", "letters", "SIMPLE = F", "NAXIS1 = -4", "BITPIX = 12", "empty"])
def test_damaged_files_are_left_to_astropy(tmp_path, damage):
    path = tmp_path / "a.fits"
    write_fits(path, np.zeros((3, 4), np.uint16))
    data = path.read_bytes()
    data = {
        "cut header": data[:2000],
        "letters": data.replace(b"BZERO   ", b"BZ\xe9RO   "),
        "SIMPLE = F": data.replace(b"SIMPLE  =                    T", b"SIMPLE  =                    F"),
        "NAXIS1 = -4": data.replace(b"NAXIS1  =                    4", b"NAXIS1  =                   -4"),
        "BITPIX = 12": data.replace(b"BITPIX  =                   16", b"BITPIX  =                   12"),
        "empty": b"",
    }[damage]
    path.write_bytes(data)
    assert fitsheader.read(path) is None


def test_compressed_images_are_astropys(tmp_path):
    fits.CompImageHDU(np.zeros((30, 40), np.int16)).writeto(tmp_path / "a.fits")
    assert fitsheader.read(tmp_path / "a.fits") is None
    assert fitsheader.read(tmp_path / "a.fits", tables=True) is not None and agrees_as_tables(tmp_path / "a.fits")


def agrees_as_tables(path):
    ours = fitsheader.read(path, tables=True)
    with fits.open(path, disable_image_compression=True) as hdus:
        return [h.data for h in ours] == [h.fileinfo()["datLoc"] for h in hdus]


def both(path, monkeypatch):
    """Everything that a frame is, by our reader and by astropy's."""
    found = []
    for reader in (fitsheader.read, lambda *_, **__: None):
        with monkeypatch.context() as patched:
            patched.setattr(fitsheader, "read", reader)
            frame = files.load(path)
            planes = [(m.cfa, m.black, m.white, m.active, m.limit) for m in frame.mosaics]
            facts = (frame.keys, frame.identity, frame.conditions, frame.row_order, frame.assumed, frame.layout)
            found.append((frame.digest, facts, frame.moments, frame.notes, planes))
    return found


def test_samples_are_the_same_frames_either_way(monkeypatch):
    paths = [*ROOT.glob("samples/*/*.fits")]
    assert len(paths) > 5
    for path in paths:
        if not path.name.endswith(".truth.fits"):
            assert fitsheader.read(path) is not None
            one, two = both(path, monkeypatch)
            assert one == two, path


def test_real_files_are_the_same_frames_either_way(data, monkeypatch):
    """Every FITS of the data folder."""
    paths = [p for p in sorted(data.rglob("*")) if files.suffix_of(p) in (".fits", ".fit") and "maps" not in p.parts]
    assert len(paths) > 30
    for path in paths:
        one, two = both(path, monkeypatch)
        assert one == two, path
