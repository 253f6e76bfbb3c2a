"""Bad input: one line with the file's name and what to do; the other frames are done; nothing is half-written."""

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli import files, maps
from fixpix_cli.defects import DefectMap


@pytest.fixture
def good(tmp_path):
    return write_fits(tmp_path / "good.fits", scene().samples, BAYERPAT="RGGB", INSTRUME="Cam")


def check(run, good, bad, *options, code=1, word=""):
    """`bad` fails by name, `good` is done."""
    done, out, err = run("correct", bad, good, "--auto", "--json", *options)
    records, summary = json_lines(out)
    assert done == code, err
    failed = [r for r in records if r["status"] == "failed"]
    assert len(failed) == 1 and bad.name in failed[0]["error"] and word in failed[0]["error"]
    assert "\n" not in failed[0]["error"] and "internal" not in failed[0]["error"]
    assert summary["done"] == 1
    assert not (bad.parent / "repaired" / bad.name).exists()
    assert not list(bad.parent.rglob(".fixpix*"))


def test_a_text_file_named_fits(run, good, tmp_path):
    bad = tmp_path / "bad.fits"
    bad.write_text("hello " * 1000)
    check(run, good, bad, word="FITS")


def test_an_empty_file(run, good, tmp_path):
    for name in ("bad.fits", "bad.dng", "bad.tif", "bad.crw"):
        bad = tmp_path / name
        bad.write_bytes(b"")
        check(run, good, bad, "--overwrite")
        bad.unlink()


def test_truncated_files(run, good, tmp_path):
    whole = good.read_bytes()
    for share in (0.05, 0.5, 0.99):
        bad = tmp_path / "bad.fits"
        bad.write_bytes(whole[: int(len(whole) * share)])
        try:
            files.load(bad)
        except Exception:
            check(run, good, bad, "--overwrite", word="")
        else:  # only padding was lost
            assert share == 0.99


def test_a_jpeg(run, good, tmp_path):
    bad = tmp_path / "photo.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    check(run, good, bad, word="not a raw")


def test_a_mask_of_another_shape(run, good, tmp_path):
    mask = tmp_path / "m.fits"
    maps.write_mask(mask, [DefectMap.empty((10, 12))])
    code, _, err = run("correct", good, "--map", mask)
    assert code == 1 and "m.fits" in err and "10 x 12" in err


def test_a_map_of_another_camera(run, good, tmp_path):
    other = write_fits(tmp_path / "other.fits", scene(seed=3).samples, INSTRUME="Other", BAYERPAT="RGGB")
    assert run("calibrate", other, "--map", "other.map.fits")[0] == 0
    code, _, err = run("correct", good, "--map", "other.map.fits")
    assert code == 1 and "Other" in err and "good.fits" in err


def test_no_map_says_what_to_do(run, good):
    code, _, err = run("correct", good)
    assert code == 1 and "calibrate" in err and "--auto" in err


def test_a_frame_of_nans_and_one_without_signal(run, tmp_path):
    for name, samples in (("nan", np.full((60, 80), np.nan, np.float32)), ("zero", np.zeros((60, 80), np.uint16))):
        path = write_fits(tmp_path / f"{name}.fits", samples)
        code, out, _ = run("correct", path, "--auto", "--json")
        assert code == 0 and json_lines(out)[1]["defects"] == 0
        assert (tmp_path / "repaired" / path.name).read_bytes() == path.read_bytes()


def test_an_all_bad_frame(run, good, tmp_path):
    mask = tmp_path / "all.fits"
    maps.write_mask(mask, [DefectMap.of(np.ones((120, 160), bool))])
    code, _, err = run("correct", good, "--map", mask)
    assert code == 1 and "good.fits" in err and "every pixel" in err and not (tmp_path / "repaired/good.fits").exists()


def test_values_above_white(run, tmp_path):
    samples = scene().samples.copy()
    samples[20:40, 20:40] = 60000
    path = write_fits(tmp_path / "over.fits", samples, BAYERPAT="RGGB")
    code, out, _ = run("correct", path, "--auto", "--white", 16383, "--json")
    assert code == 0 and json_lines(out)[0][0]["status"] == "done"


def test_black_above_white(run, good):
    code, _, err = run("detect", good, "--black", 500, "--white", 400)
    assert code == 1 and "--black" in err


def test_a_damaged_map_is_named(run, good, tmp_path):
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  =" + b" " * 4000)
    code, _, err = run("correct", good, "--map", "broken.fits")
    assert code == 1 and "broken.fits" in err


def test_fill_nan_needs_floats(run, good, tmp_path):
    assert run("correct", good, "--auto", "--fill", "nan")[0] in (0, 1)
    path = write_fits(tmp_path / "f.fits", scene().samples.astype(np.float32), BAYERPAT="RGGB")
    mask = tmp_path / "m.fits"
    bad = np.zeros((120, 160), bool)
    bad[5, 6] = True
    maps.write_mask(mask, [DefectMap.of(bad)])
    assert run("correct", path, "--map", mask, "--fill", "nan")[0] == 0
    assert np.isnan(files.load(tmp_path / "repaired/f.fits").mosaics[0].samples[5, 6])
