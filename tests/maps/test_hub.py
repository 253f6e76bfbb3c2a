"""`fixpix maps export` and `import` as a user or a script calls them."""

import json

import numpy as np
import pytest
from conftest import ROOT, write_fits

from fixpix_cli import maps
from fixpix_cli.cli import main
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.maps import foreign

STARS = ROOT / "samples/lights/stars.fits"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command line in this process, which starts faster: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIXPIX_STORE", str(tmp_path / "store"))

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return call


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A camera's map in a store."""
    from fixpix_cli import jobs

    store = tmp_path_factory.mktemp("store")
    for outcome in jobs.calibrate([ROOT / "samples/darks"], jobs.Common(), store=store):
        assert outcome.status == "done", outcome.error
    return store


def test_every_format_stands_in_the_help(run):
    text = run("maps", "export", "--help")[1]
    assert set(foreign.FORMATS) <= set(text.replace(",", " ").split())
    assert "Examples:" in text and "Examples:" in run("maps", "import", "--help")[1]


def test_a_cameras_map_goes_out_comes_back_and_repairs(run, tmp_path, learned):
    """By a part of the camera's name; what is lost is said; `correct --map` takes what comes back."""
    code, out, err = run(
        "maps",
        "export",
        "simulated",
        "--store",
        learned,
        "--format",
        "siril",
        "--like",
        STARS,
        "--out",
        "b.lst",
        "--json",
    )
    facts = json.loads(out)
    assert code == 0 and err == "" and facts["status"] == "done" and facts["format"] == "siril"
    assert any("probabilities" in lost for lost in facts["lost"]) and any("WARM" in lost for lost in facts["lost"])
    code, out, _ = run("maps", "import", "b.lst", "--like", STARS, "--out", "b.mask.fits", "--json")
    back = json.loads(out)
    assert code == 0 and back["defects"] == facts["defects"] > 100 and back["left_out"] == []
    mask = maps.read_mask(tmp_path / "b.mask.fits")
    original = maps.read_mask(next(learned.glob("*.map.fits")))
    assert np.array_equal(mask.planes[0].bad, original.planes[0].bad) and mask.row_order == "TOP-DOWN"
    assert mask.header["FPXFROM"] == "siril"
    assert run("correct", STARS, "--map", "b.mask.fits")[0] == 0


def test_a_threshold_chooses_what_goes_out(run, tmp_path, learned):
    path = next(learned.glob("*.map.fits"))
    counts = []
    for level in (0.05, 0.99):
        out = run("maps", "export", path, "--format", "csv", "--threshold", level, "--out", f"{level}.csv", "--json")[1]
        counts.append(json.loads(out)["defects"])
    assert counts[0] > counts[1] > 0
    maps.write_mask(tmp_path / "m.mask.fits", [DefectMap.empty((4, 5))])
    code, _, err = run("maps", "export", "m.mask.fits", "--format", "csv", "--threshold", "0.5")
    assert code == 2 and "without probabilities" in err


def test_outputs_are_not_overwritten_and_inputs_never(run, tmp_path):
    maps.write_mask(tmp_path / "m.mask.fits", [DefectMap.of(np.eye(4, 5, dtype=bool), DQ.HOT)])
    assert run("maps", "export", "m.mask.fits", "--format", "png")[0] == 0
    before = (tmp_path / "m.png").read_bytes()
    code, _, err = run("maps", "export", "m.mask.fits", "--format", "png")
    assert code == 1 and "--overwrite" in err
    assert run("maps", "export", "m.mask.fits", "--format", "png", "--overwrite")[0] == 0
    assert (tmp_path / "m.png").read_bytes() == before
    code, _, err = run("maps", "export", "m.mask.fits", "--format", "fits", "--out", "m.mask.fits", "--overwrite")
    assert code == 2 and "file to read" in err
    code, out, _ = run("maps", "export", "m.mask.fits", "--format", "edf", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["status"] == "planned" and not list(tmp_path.glob("*.edf"))
    assert run("maps", "export", "m.mask.fits", "--format", "edf", "--out", "no/where.edf")[0] == 3
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".fixpix")]


def test_wrong_usage_is_told(run, tmp_path):
    maps.write_mask(tmp_path / "m.mask.fits", [DefectMap.empty((4, 5)), DefectMap.empty((4, 5))])
    (tmp_path / "l.lst").write_text("P 1 2\n")
    write_fits(tmp_path / "f.fits", np.zeros((4, 6), np.uint16))
    for arguments, code, words in (
        (("export", "m.mask.fits", "--format", "dwraw"), 2, "no such format"),
        (("export", "nobody", "--format", "csv"), 2, "no such map"),
        (("export", "m.mask.fits", "--format", "siril"), 2, "--plane N"),
        (("export", "m.mask.fits", "--format", "siril", "--plane", 2), 2, "no plane 2"),
        (("export", "m.mask.fits", "--format", "siril", "--plane", 1, "--like", "f.fits"), 1, "4 x 6"),
        (("import", "l.lst", "--out", "x.mask.fits"), 2, "--shape HxW or --like FRAME"),
        (("import", "l.lst", "--shape", "4,5", "--out", "x.mask.fits"), 2, "960x1280"),
        (("import", "l.lst", "--shape", "4x5", "--like", "f.fits", "--out", "x.mask.fits"), 2, "not the shape"),
        (("import", "l.lst", "--shape", "4x5", "--zero-is-bad", "--out", "x.mask.fits"), 2, "mask images"),
        (("import", "nothing.lst", "--shape", "4x5", "--out", "x.mask.fits"), 1, "no such file"),
    ):
        got, _, err = run("maps", *arguments)
        assert got == code and words in err, (arguments, got, err)
    assert not (tmp_path / "x.mask.fits").exists()


def test_planes_go_through_the_formats_that_hold_them(run, tmp_path):
    rng = np.random.default_rng(0)
    planes = [DefectMap.of(rng.random((6, 7)) < 0.2, kind) for kind in (DQ.HOT, DQ.DEAD, DQ.WARM)]
    maps.write_mask(tmp_path / "rgb.mask.fits", planes, row_order="TOP-DOWN")
    for name in ("csv", "jwst"):
        assert run("maps", "export", "rgb.mask.fits", "--format", name, "--out", f"m-{name}")[0] == 0
        assert run("maps", "import", f"m-{name}", "--out", f"{name}.mask.fits")[0] == 0
        back = maps.read_mask(tmp_path / f"{name}.mask.fits").planes
        assert all(np.array_equal(a.dq, b.dq) for a, b in zip(back, planes, strict=True))


def test_mask_images_of_either_polarity(run, tmp_path):
    good = np.full((6, 7), 255, np.uint8)
    good[2, 3] = 0
    write_fits(tmp_path / "awe.fits", good // 255)
    code, _, err = run("maps", "import", "awe.fits", "--out", "a.mask.fits")
    assert code == 1 and "--zero-is-bad" in err and not (tmp_path / "a.mask.fits").exists()
    assert run("maps", "import", "awe.fits", "--zero-is-bad", "--out", "a.mask.fits")[0] == 0
    assert [tuple(p) for p in np.argwhere(maps.read_mask(tmp_path / "a.mask.fits").planes[0].bad)] == [(2, 3)]


def test_a_list_holds_for_all_planes_of_rgb(run, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "rgb.tif", np.full((12, 14, 3), 500, np.uint16), photometric="rgb")
    (tmp_path / "l.lst").write_text("P 3 0 H\n")
    code, _, err = run("maps", "import", "l.lst", "--like", "rgb.tif", "--out", "m.mask.fits")
    assert code == 0 and "all 3 planes" in err
    planes = maps.read_mask(tmp_path / "m.mask.fits").planes
    assert [np.argwhere(plane.bad).tolist() for plane in planes] == [[[0, 3]]] * 3
    assert run("correct", "rgb.tif", "--map", "m.mask.fits", "--method", "median")[0] == 0
