"""Darks that are not what their headers say: named, and counted so that they do no harm."""

import json

import numpy as np
import pytest
from conftest import json_lines, write_fits
from test_darkcurrent import SENSOR, evidence

from fixpix_cli import checking, maps
from fixpix_cli.evidence import Evidence


def one_by_one(conditions, **how):
    return [evidence([condition], start=n, **how) for n, condition in enumerate(conditions)]


def test_honest_darks_are_left_alone():
    parts = one_by_one([(60, -10), (60, -10), (30, -10), (60, 0), (60, 0), (60, 0), (120, 5)])
    assert [found.notes for found in checking.check(Evidence(), parts)] == [()] * 7
    assert all(found.evidence is part for found, part in zip(checking.check(Evidence(), parts), parts, strict=True))


def write(path, mosaic, number, **cards):
    facts = {"INSTRUME": "Cam", "IMAGETYP": "DARK", "EXPTIME": 60.0, "CCD_TEMP": 0.0, "ROWORDER": "TOP-DOWN"}
    facts |= {"BAYERPAT": "RGGB", "PEDESTAL": 0, "NUMBER": number} | cards
    return write_fits(path, mosaic.samples, **facts)


@pytest.fixture
def darks(tmp_path):
    folder = tmp_path / "darks"
    folder.mkdir()
    for n in range(4):
        write(folder / f"d{n}.fits", SENSOR.expose(None, 60, 0, n), n)
    return folder


def notes_of(text):
    records, _ = json_lines(text)
    return {line["path"].rsplit("/", 1)[1]: " ".join(line.get("notes", [])) for line in records}


def test_a_light_with_a_picture_among_darks_counts_as_a_light(run, darks, tmp_path):
    scene = np.add.outer(np.linspace(0, 300, 240), np.linspace(0, 300, 320))
    write(darks / "light.fits", SENSOR.expose(scene, 60, 0, 9), 9)
    code, out, _ = run("calibrate", darks, "--map", tmp_path / "m.fits", "--json")
    assert code == 0 and "shows a picture, unlike the others: counted as a light" in notes_of(out)["light.fits"]
    tallies = maps.read_map(tmp_path / "m.fits").evidence.tallies
    assert {bin_.kind: tally.frames for (_, bin_), tally in tallies.items()} == {"dark": 4, "light": 1}


def test_darks_that_all_glow_count_as_darks(run, tmp_path):
    glow = np.zeros(SENSOR.shape)
    glow[:120, :160] = 60.0
    folder = tmp_path / "glowing"
    folder.mkdir()
    for n in range(3):
        write(folder / f"g{n}.fits", SENSOR.expose(glow, 60, 0, n), n)
    code, out, _ = run("calibrate", folder, "--map", tmp_path / "m.fits", "--json")
    assert code == 0 and all("glow): counted as a dark" in note for note in notes_of(out).values())
    assert [bin_.kind for _, bin_ in maps.read_map(tmp_path / "m.fits").evidence.tallies] == ["dark"]


def test_a_light_of_a_flat_sky_among_darks_is_told_by_the_others(run, darks, tmp_path):
    write(darks / "sky.fits", SENSOR.expose(np.full(SENSOR.shape, 4.0), 60, 0, 9), 9)
    code, out, _ = run("calibrate", darks, "--map", tmp_path / "m.fits", "--json")
    notes = notes_of(out)
    assert (
        code == 0 and "counted as a light" in notes["sky.fits"] and "above that of the other darks" in notes["sky.fits"]
    )
    assert not any("counted" in notes[f"d{n}.fits"] for n in range(4))
    read = maps.read_map(tmp_path / "m.fits").evidence
    assert {bin_.kind: tally.frames for (_, bin_), tally in read.tallies.items()} == {"dark": 4, "light": 1}
    assert sorted(frame.conditions.kind for frame in read.frames.values()) == ["dark"] * 4 + ["light"]


def test_a_wrong_temperature_is_named(run, darks, tmp_path):
    write(darks / "warm.fits", SENSOR.expose(None, 60, 12, 9), 9)
    write(darks / "cold.fits", SENSOR.expose(None, 60, 0, 8), 8, CCD_TEMP=-20.0)
    code, out, _ = run("calibrate", darks, "--map", tmp_path / "m.fits", "--json")
    notes = notes_of(out)
    assert code == 0
    assert "have the dark current of about 1" in notes["warm.fits"] and "its header says 0 C" in notes["warm.fits"]
    assert "its header says -20 C" in notes["cold.fits"]
    assert not any("header" in notes[f"d{n}.fits"] for n in range(4))
    tallies = maps.read_map(tmp_path / "m.fits").evidence.tallies
    assert {bin_.temperature: tally.frames for (_, bin_), tally in tallies.items()} == {0: 4, None: 2}


def test_a_later_run_is_compared_with_the_map(run, darks, tmp_path):
    run("calibrate", darks, "--map", tmp_path / "m.fits")
    late = write(tmp_path / "late.fits", SENSOR.expose(None, 60, 12, 9), 9)
    _, out, _ = run("calibrate", late, "--map", tmp_path / "m.fits", "--json")
    assert "its header says 0 C" in notes_of(out)["late.fits"]


def test_the_opposite_row_order_is_turned(run, darks, tmp_path):
    turned = SENSOR.expose(None, 60, 0, 9).upside_down()
    write(tmp_path / "up.fits", turned, 9, ROWORDER="BOTTOM-UP")
    run("calibrate", darks, "--map", tmp_path / "one.fits")
    run("calibrate", darks, "--map", tmp_path / "two.fits")
    code, out, _ = run("calibrate", tmp_path / "up.fits", "--map", tmp_path / "two.fits", "--json")
    assert code == 0 and "flipped to the map's" in notes_of(out)["up.fits"]
    one, two = (maps.read_map(tmp_path / f"{name}.fits").view(0).bad for name in ("one", "two"))
    assert (one & two).sum() > 0.95 * (one | two).sum()


def test_correct_says_what_it_predicted_and_turns_with_the_rows(run, darks, tmp_path):
    run("calibrate", darks)
    frame = SENSOR.expose(np.full(SENSOR.shape, 20.0), 5, 10, 30)
    write(tmp_path / "a.fits", frame, 30, IMAGETYP="LIGHT", EXPTIME=5.0, CCD_TEMP=10.0)
    write(
        tmp_path / "b.fits", frame.upside_down(), 31, IMAGETYP="LIGHT", EXPTIME=5.0, CCD_TEMP=10.0, ROWORDER="BOTTOM-UP"
    )
    code, out, err = run("correct", "a.fits", "b.fits", "--json")
    records, summary = json_lines(out)
    assert code == 0 and summary["done"] == 2, err
    for record in records:
        assert "nearest darks are 60 s, 0 C; this frame is 5 s, 10 C" in " ".join(record["notes"])
    assert records[0]["defects"] == records[1]["defects"] > 100
    sure = json_lines(run("correct", "a.fits", "--json", "--out", "sure", "--confidence", "0.999")[1])[0][0]["defects"]
    assert 0 < sure < records[0]["defects"]
    assert run("correct", "a.fits", "--out", "both", "--confidence", "0.9", "--max-false", "3")[0] == 2


def test_mixed_cameras_and_binnings_make_maps_of_their_own(run, darks, tmp_path):
    other = SENSOR.expose(None, 60, 0, 7)
    write(darks / "other.fits", other, 7, INSTRUME="Cam two")
    write(darks / "binned.fits", other.with_samples(other.samples), 6, XBINNING=2, YBINNING=2)
    code, out, _ = run("calibrate", darks, "--json")
    _, summary = json_lines(out)
    assert code == 0 and sorted(line["frames"] for line in summary["maps"]) == [1, 1, 4]
    assert len(json.loads(run("maps", "list", "--json")[1].splitlines()[0])) > 0
