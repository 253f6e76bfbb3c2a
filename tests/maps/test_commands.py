"""`fixpix maps` and `calibrate` as a script meets them: exit codes, JSON, and what a store in trouble says."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from conftest import ROOT, json_lines, write_fits

from fixpix_cli import maps
from fixpix_cli.defects import DefectMap

SHAPE = (40, 56)
HOT = [(5, 7), (20, 30), (33, 50)]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run a command in this process: (exit code, stdout, stderr)."""
    from fixpix_cli.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIXPIX_STORE", str(tmp_path / "store"))

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def darks(folder, numbers, month="2026-01", hot=HOT, model="Cam", **cards):
    """Frames of a camera with hot pixels."""
    folder.mkdir(exist_ok=True)
    for n in numbers:
        samples = np.rint(np.random.default_rng(n).normal(500, 5, SHAPE)).astype(np.uint16)
        for place in hot:
            samples[place] = 4000
        write_fits(
            folder / f"d{n}.fits", samples, INSTRUME=model, IMAGETYP="Dark Frame", EXPTIME=60.0, CCD_TEMP=-5.0,
            DATE_OBS=f"{month}-03T00:00:{n:02d}", **cards,
        )  # fmt: skip
    return folder


def calibrated(call, tmp_path, name, numbers, **how):
    path = tmp_path / f"{name}.map.fits"
    assert call("calibrate", darks(tmp_path / name, numbers, **how), "--map", path, "-q", "-j1")[0] == 0
    return path


def test_show_tells_everything(call, tmp_path):
    path = calibrated(call, tmp_path, "a", range(3))
    calibrated(call, tmp_path, "a", range(3, 6), month="2026-04", hot=[*HOT, (8, 40), (12, 44)])
    code, out, _ = call("maps", "show", path, "--json", "--since", "2026-03-15", "--picture", "a.png")
    facts = json.loads(out)
    assert code == 0 and facts["frames"] == 6 and facts["months"] == {"2026-01": 3, "2026-04": 3}
    assert facts["defects"] == 5 and sum(facts["types"].values()) == 5 and facts["shapes"]["single"] == 5
    assert facts["writers"] == 1
    assert sum(one["count"] for one in facts["histograms"]["probability"]) == facts["conditions"][0]["suspects"]
    assert sum(one["count"] for one in facts["histograms"]["excess"][-4:]) >= 5
    assert facts["trend"]["since"] == "2026-03" and facts["trend"]["new"] == [[0, 8, 40], [0, 12, 44]]
    assert (facts["trend"]["frames_before"], facts["trend"]["frames_since"]) == (3, 3) and not facts["trend"]["gone"]
    assert facts["previous"].endswith(".a.map.fits.bak") and os.path.exists(facts["previous"])
    code, out, _ = call("maps", "show", path, "--since", "2026-03")
    assert code == 0 and "new: 2 at (row, col) (8, 40), (12, 44)" in out and "mean probability" in out
    assert call("maps", "show", path, "--since", "soon")[0] == 2
    assert call("maps", "show", path, "--picture", "a.png")[0] == 1
    from fixpix_cli.files import png

    assert png.is_gray(tmp_path / "a.png") is False


def test_the_picture_keeps_every_single_defect():
    from fixpix_cli.defects import DQ
    from fixpix_cli.plots import picture

    dq = np.zeros((3000, 4100), np.int32)
    places = np.random.default_rng(0).integers(0, dq.size, 40)
    dq.reshape(-1)[places] = int(DQ.DO_NOT_USE | DQ.HOT)
    image = picture([DefectMap(dq)])
    rows, cols = np.divmod(places, 4100)
    assert image.shape == (1000, 1367, 3)
    assert (image[rows // 3, cols // 3] == (255, 60, 50)).all()
    assert (image == (255, 60, 50)).all(axis=2).sum() == len(set(zip(rows // 3, cols // 3, strict=True)))


def test_diff_of_maps_and_masks(call, tmp_path):
    a = calibrated(call, tmp_path, "a", range(2))
    b = calibrated(call, tmp_path, "b", range(2, 4), hot=[HOT[0], HOT[1], (9, 9)])
    code, out, _ = call("maps", "diff", a, b, "--json", "--out", "changed.fits")
    facts = json.loads(out)
    assert code == 0 and facts["only_first"] == [[0, 33, 50]] and facts["only_second"] == [[0, 9, 9]]
    assert facts["both"] == 2 and facts["other_type"] == []
    assert np.argwhere(maps.read_mask(tmp_path / "changed.fits").planes[0].bad).tolist() == [[9, 9], [33, 50]]
    assert "only in" in call("maps", "diff", a, b)[1]
    upside = DefectMap(maps.read_mask(a).planes[0].dq[::-1].copy())
    maps.write_mask(tmp_path / "m.fits", [maps.read_mask(a).planes[0]], row_order="TOP-DOWN")
    maps.write_mask(tmp_path / "u.fits", [upside], row_order="BOTTOM-UP")
    code, out, err = call("maps", "diff", "m.fits", "u.fits", "--json")
    assert code == 0 and json.loads(out)["both"] == 3 and not json.loads(out)["only_first"] and "flipped" in err
    maps.write_mask(tmp_path / "s.fits", [DefectMap.empty((4, 4))])
    code, _, err = call("maps", "diff", a, "s.fits")
    assert code == 1 and "s.fits" in err and "4 x 4" in err


def test_merge_prune_remove_from_the_shell(call, tmp_path):
    a, b = calibrated(call, tmp_path, "a", range(2)), calibrated(call, tmp_path, "b", range(2, 4), month="2026-02")
    code, out, _ = call("maps", "merge", a, b, "--out", "ab.map.fits", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["frames"] == 4 and facts["left_out"] == [] and facts["merged"] == [str(a), str(b)]
    assert call("maps", "merge", a, b, "--out", "ab.map.fits")[0] == 2
    assert call("maps", "merge", a, "--out", "x.map.fits")[0] == 2
    c = calibrated(call, tmp_path, "c", range(1, 5))
    code, _, err = call("maps", "merge", a, c, "--out", "ac.map.fits")
    assert code == 1 and "d1.fits" in err and "--leave-out" in err and not (tmp_path / "ac.map.fits").exists()
    code, out, err = call("maps", "merge", a, c, "--out", "ac.map.fits", "--leave-out", "--json")
    assert code == 0 and json.loads(out)["left_out"] == ["d0.fits", "d1.fits"] and "calibrate them again" in err
    code, out, _ = call("maps", "prune", "ab.map.fits", "--before", "2026-02", "--json")
    assert code == 0 and json.loads(out)["dropped"]["frames"] == 2 and json.loads(out)["frames"] == 2
    assert call("maps", "prune", "ab.map.fits")[0] == 2
    code, out, _ = call("maps", "recover", "ab.map.fits", "--back", "--json")
    assert code == 0 and json.loads(out)["frames"] == 4
    assert call("maps", "remove", "ab.map.fits")[0] == 2 and (tmp_path / "ab.map.fits").exists()
    assert call("maps", "remove", a.parent / "a/d0.fits", "--yes")[0] != 0
    assert call("maps", "remove", "ab.map.fits", "--yes")[0] == 0
    assert not [p for p in tmp_path.iterdir() if "ab.map" in p.name]


def test_a_damaged_map_loses_no_evidence(call, tmp_path):
    """calibrate must neither overwrite nor ignore it; another camera's frames in the same run are counted."""
    darks(tmp_path / "in", range(2))
    assert call("calibrate", "in", "-q", "-j1")[0] == 0
    assert call("calibrate", darks(tmp_path / "in", range(2, 4)), "-q", "-j1")[0] == 0
    (path,) = maps.Store(tmp_path / "store").maps()
    path.write_bytes(path.read_bytes()[:9000])
    cut = path.read_bytes()
    darks(tmp_path / "in", range(4, 5)), darks(tmp_path / "in", range(5, 6), model="Other")
    code, out, _ = call("calibrate", "in", "--json", "-j1")
    records, _ = json_lines(out)
    told = {os.path.basename(r["path"]): r for r in records}
    assert code == 3 and told["d5.fits"]["status"] == "done" and path.read_bytes() == cut
    assert "fixpix maps recover" in told["d4.fits"]["error"] and path.name in told["d4.fits"]["error"]
    code, _, err = call("maps", "show", path)
    assert (code, path.name in err, "maps recover" in err) == (3, True, True)
    assert call("maps", "list")[0] == 3
    assert call("maps", "recover", path)[0] == 0
    code, out, _ = call("calibrate", "in", "--json", "-j1")
    assert code == 0 and json_lines(out)[1]["done"] == 3  # d2 and d3 came in with the change that was lost, and d4
    assert {m["frames"] for m in json_lines(out)[1]["maps"]} == {5, 1}


def test_a_map_of_a_later_version_is_refused(call, tmp_path):
    path = calibrated(call, tmp_path, "a", range(1))
    with fits.open(path) as hdus:
        hdus[0].header["FPXMAP"] = 99
        hdus.writeto(path, overwrite=True, checksum=True)
    before = path.read_bytes()
    for arguments in (("calibrate", tmp_path / "a", "--map", path, "-j1"), ("maps", "prune", path, "--below", "0.1")):
        code, _, err = call(*arguments)
        assert code == 3 and "a.map.fits" in err and "format 99" in err and "update fixpix" in err
    assert path.read_bytes() == before


def test_opposite_row_orders_in_one_run(call, tmp_path):
    """Lost otherwise: half the evidence would lie upside down in the map."""
    darks(tmp_path / "in", range(2), ROWORDER="TOP-DOWN")
    darks(tmp_path / "in", range(2, 4), hot=[(39 - r, c) for r, c in HOT], ROWORDER="BOTTOM-UP")
    code, _, err = call("calibrate", "in", "--map", "a.map.fits", "-j1")
    assert code == 0 and "were flipped to the map's TOP-DOWN" in err
    assert np.argwhere(maps.read_mask(tmp_path / "a.map.fits").planes[0].bad).tolist() == [list(p) for p in HOT]


def test_no_map_fits_and_why(call, tmp_path):
    """The message names what differs from the map that the user may have expected to be used."""
    assert call("calibrate", darks(tmp_path / "in", range(1)), "-q", "-j1")[0] == 0
    other = darks(tmp_path / "binned", range(1), XBINNING=2, YBINNING=2)
    code, _, err = call("correct", other, "--out", "out")
    assert code == 1 and "binning 1 x 1 instead of 2 x 2" in err
    (path,) = maps.Store(tmp_path / "store").maps()
    code, _, err = call("correct", other, "--map", path, "--out", "out")
    assert code == 0 and "was made with binning 1 x 1 instead of 2 x 2" in err


# ---------------------------------------------------------------- disks


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_write_that_fails_leaves_the_map_as_it_was(call, tmp_path):
    path = calibrated(call, tmp_path, "a", range(1))
    before, listed = path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())
    darks(tmp_path / "a", range(1, 3))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from fixpix_cli.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "calibrate", str(tmp_path / "a"), "--map", str(path), "-j1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3 and "a.map.fits" in done.stderr and "file too large" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == listed


def test_a_full_disk_and_a_read_only_folder(call, tmp_path):
    """Of a disk without room for the second map: named, exit 3, the old map whole."""
    if os.geteuid() != 0 or subprocess.run(["which", "mount"], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "none", small], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        assert call("calibrate", darks(tmp_path / "in", range(1)), "--map", small / "a.map.fits", "-j1")[0] == 0
        before = (small / "a.map.fits").read_bytes()
        (small / "fill").write_bytes(b"x" * 20_000)
        code, _, err = call("calibrate", darks(tmp_path / "in", range(1, 3)), "--map", small / "a.map.fits", "-j1")
        assert code == 3 and "no space left" in err and "a.map.fits" in err
        assert (small / "a.map.fits").read_bytes() == before
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        code, _, err = call("calibrate", tmp_path / "in", "--map", small / "a.map.fits", "-j1")
        assert code == 3 and str(small) in err and "--store" in err
        code, _, err = call("maps", "prune", small / "a.map.fits", "--below", "0.1")
        assert code == 3 and "read-only" in err
        assert call("maps", "show", small / "a.map.fits")[0] == 0
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_concurrent_and_killed_calibrate_processes_lose_nothing():
    """Real processes on one map, half of them killed at any moment, round after round (tests/bench/store.py)."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/bench/store.py", "--rounds", "24", "--frames", "4"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost frames: 0" in done.stdout and "wrong sums: 0" in done.stdout and " killed: 0" not in done.stdout
