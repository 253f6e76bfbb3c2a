"""Scripts rely on the command line: what it reads, writes, prints and returns."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import ROOT, json_lines, scene, write_fits

from fixpix_cli import files, maps

RECORD = {"path", "output", "status", "error", "defects", "rate", "method", "map", "seconds"}
SUMMARY = {"frames", "done", "skipped", "failed", "planned", "defects", "seconds", "exit", "maps"}


@pytest.fixture
def frames(tmp_path):
    """Three frames of one camera in a folder, one below it, and things that are no frames."""
    folder = tmp_path / "in put"
    (folder / "night").mkdir(parents=True)
    for n, name in enumerate(("a1.fits", "a2.fits", "a10.fits", "night/b ü.fits")):
        write_fits(folder / name, scene(seed=n).samples, BAYERPAT="RGGB", INSTRUME="Cam", EXPTIME=1.0)
    write_fits(folder / ".hidden.fits", scene().samples)
    shutil.copy(folder / "a1.fits", folder / "old.mask.fits")
    (folder / "notes.txt").write_text("no frame")
    return folder


def test_json_is_lines_with_the_promised_keys_and_nothing_else(run, frames):
    code, out, err = run("detect", frames, "--json")
    records, summary = json_lines(out)
    assert code == 0 and err == ""
    assert [os.path.basename(r["path"]) for r in records] == ["a1.fits", "a2.fits", "a10.fits"]
    assert all(set(r) >= RECORD and r["status"] == "done" and r["error"] is None for r in records)
    assert set(summary) >= SUMMARY and summary["frames"] == 3 and summary["exit"] == 0


def test_directories_recurse_on_demand_and_keep_their_structure(run, frames, tmp_path):
    code, out, _ = run("correct", frames, "-r", "--auto", "--json", "--out", "o")
    records, _ = json_lines(out)
    assert code == 0 and len(records) == 4
    assert (tmp_path / "o/night/b ü.fits").is_file() and (tmp_path / "o/a1.fits").is_file()


def test_calibrate_counts_a_frame_once_and_reports_its_maps(run, frames, tmp_path):
    code, out, _ = run("calibrate", frames, "--json")
    _, summary = json_lines(out)
    assert code == 0 and summary["done"] == 3
    assert set(summary["maps"][0]) >= {"path", "camera", "frames", "defects"}
    again = json_lines(run("calibrate", frames, "--json")[1])[1]
    assert again["skipped"] == 3 and again["done"] == 0 and again["maps"][0]["frames"] == 3
    listed = json.loads(run("maps", "list", "--json")[1])
    assert listed["frames"] == 3 and listed["camera"] == "Cam"
    shown = json.loads(run("maps", "show", "cam", "--json")[1])
    assert shown["frames"] == 3


def test_two_cameras_into_one_map_is_a_usage_error(run, frames, tmp_path):
    write_fits(frames / "other.fits", scene().samples, INSTRUME="Other")
    code, _, err = run("calibrate", frames, "--map", "one.fits")
    assert code == 2 and "two cameras" in err and not (tmp_path / "one.fits").exists()


def test_inject_detect_correct_evaluate(run, frames, tmp_path):
    assert run("inject", frames, "--out", "hurt", "--rate", "1%", "--seed", 3)[0] == 0
    truth = maps.read_mask(tmp_path / "hurt/a1.truth.fits")
    clean, hurt = (files.load(f / "a1.fits").mosaics[0].samples for f in (frames, tmp_path / "hurt"))
    assert np.array_equal(clean != hurt, truth.planes[0].bad)
    assert truth.header["FPXRATE"] == 0.01 and truth.header["FPXSEED"] == 3 and truth.header["FPXKIND"] == "relative"
    assert run("detect", "hurt", "--probability")[0] == 0
    scores = json_lines(run("evaluate", "--truth", "hurt", "--masks", "masks", "--json")[1])[1]
    assert scores["recall"] > 0.97 and scores["precision"] > 0.9 and "fp_per_mp" in scores and "f1" in scores
    assert run("correct", "hurt", "--map", "hurt")[0] == 0
    out = run("evaluate", "--truth", "hurt", "--clean", frames, "--repaired", "repaired", "--json")[1]
    figures = json_lines(out)[1]
    assert figures["good_changed"] == 0 and figures["nmse_stored"] < 0.01
    assert {"nmse_black", "psnr_bad", "psnr_frame", "good_changed_max"} <= set(figures)
    text = run("evaluate", "--truth", "hurt", "--masks", "masks")[1]
    assert "precision" in text and "all" in text


def test_masks_are_fits_with_an_int32_dq(run, frames, tmp_path):
    from astropy.io import fits

    run("detect", frames / "a1.fits", "--probability")
    with fits.open(tmp_path / "masks/a1.mask.fits") as hdus:
        assert hdus["DQ"].data.dtype == np.int32 and hdus["DQ"].data.shape == (120, 160)
        assert hdus["PROB"].data.dtype.kind == "f" and "DQ_DEF" in hdus
        assert not np.any((hdus["DQ"].data != 0) & (hdus["DQ"].data & 1 == 0))


def test_the_same_seed_makes_the_same_damage_in_any_number_of_processes(run, frames, tmp_path):
    for out, jobs in (("x", 1), ("y", 2)):
        assert run("inject", frames, "--out", out, "--seed", 5, "-j", jobs)[0] == 0
    for name in ("a1.fits", "a10.fits"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
    one, two = (maps.read_mask(tmp_path / "x" / f"{n}.truth.fits").planes[0].bad for n in ("a1", "a2"))
    assert (one & two).sum() > 0.95 * one.sum()


def test_an_existing_output_fails_unless_allowed(run, frames, tmp_path):
    frame = frames / "a1.fits"
    assert run("correct", frame, "--auto")[0] == 0
    code, out, _ = run("correct", frame, "--auto", "--json")
    assert code == 1 and "exists already" in json_lines(out)[0][0]["error"]
    assert run("correct", frame, "--auto", "--overwrite")[0] == 0
    assert json_lines(run("correct", frame, "--auto", "--resume", "--json")[1])[1]["skipped"] == 1


def test_dry_run_writes_nothing(run, frames, tmp_path):
    for command in (["correct", "--auto"], ["detect"], ["inject", "--out", "q"], ["calibrate"]):
        before = sorted(tmp_path.rglob("*"))
        code, out, _ = run(command[0], frames, *command[1:], "--dry-run", "--json")
        assert code == 0 and json_lines(out)[1]["planned"] == 3
        assert sorted(tmp_path.rglob("*")) == before


def test_in_place_keeps_all_other_bytes(run, frames, tmp_path):
    frame = frames / "a1.fits"
    samples = files.load(frame).mosaics[0].samples.copy()
    samples[50, 50] = 16000
    write_fits(frame, samples, BAYERPAT="RGGB")
    before = frame.read_bytes()
    assert run("correct", frame, "--auto", "--in-place")[0] == 0
    after = frame.read_bytes()
    assert len(before) == len(after)
    assert 1 <= sum(a != b for a, b in zip(before, after, strict=True)) <= 40
    assert run("correct", frame, "--auto", "--in-place", "--out", "x")[0] == 2


def test_usage_errors_do_nothing(run, frames, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    same = tmp_path / "other"
    same.mkdir()
    shutil.copy(frames / "a1.fits", same)
    for arguments in (
        ["correct", "missing.fits"],
        ["correct", empty],
        ["correct", "nothing*.fits"],
        ["correct", frames / "a1.fits", same / "a1.fits", "--auto"],
        ["correct", frames, "--method", "magic"],
        ["correct", frames, "--auto", "--cfa", "RGBX"],
        ["detect", frames, "--no-such-option"],
        ["inject", frames, "--out", "x", "--rate", "2"],
        ["calibrate", frames, "--kind", "odd"],
        ["evaluate", "--truth", empty, "--masks", empty],
    ):
        code, out, err = run(*arguments)
        assert code == 2, (arguments, code, err)
        assert err and not out
    assert not (tmp_path / "repaired").exists()


def test_unusable_places_are_exit_3(run, frames, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("correct", frames, "--auto", "--out", "file")[0] == 3
    assert run("calibrate", frames, "--store", tmp_path / "file")[0] == 3


def test_globs_that_the_shell_left_alone(run, frames):
    code, out, _ = run("detect", f"{frames}/a*.fits", "--json")
    assert code == 0 and json_lines(out)[1]["frames"] == 3


def test_help_has_examples_for_every_command(run):
    for command in ("calibrate", "detect", "correct", "inject", "evaluate"):
        assert "Example" in run(command, "--help")[1]


def test_the_version(run):
    assert run("--version")[1].startswith("fixpix ")
    assert (ROOT / "pyproject.toml").read_text().count(f'version = "{run("--version")[1].split()[1]}"') == 1


def test_provenance_is_added_on_demand_and_changes_no_pixel(run, frames, tmp_path):
    from astropy.io import fits

    assert run("inject", frames / "a1.fits", ROOT / "samples/lights/hills.dng", "--out", "hurt")[0] == 0
    for name, options in (("plain", []), ("said", ["--provenance"])):
        assert run("correct", "hurt", "--map", "hurt", "--out", name, *options)[0] == 0
    plain, said = (tmp_path / n / "a1.fits" for n in ("plain", "said"))
    with fits.open(said) as hdus:
        header = hdus[0].header
        assert "fixpix" in str(header["HISTORY"]) and header["FPXNPIX"] > 0 and header["INSTRUME"] == "Cam"
    assert "FPXNPIX" not in fits.getheader(plain)
    for name in ("a1.fits", "hills.dng"):
        one, two = (files.load(tmp_path / n / name).mosaics[0].samples for n in ("plain", "said"))
        assert np.array_equal(one, two)
    assert b"bad pixels repaired" in (tmp_path / "said/hills.dng").read_bytes()
