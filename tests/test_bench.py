"""The bench's own arithmetic: a wrong helper would print wrong figures into the README, and nothing else would fail."""

import math
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "bench"))
import output
import peers
import rows_detection
import scenes
import speed
import speed_runs
import sums
import tables_correction
import tables_detection
import tables_multiframe
import tasks

from fixpix_cli.cfa import BAYER, GBRG, MONO, RGGB, XTRANS
from fixpix_cli.inject import Injection, inject


def test_a_calibrated_forecast_has_no_calibration_error_and_an_overconfident_one_has():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, (1000, 1000))
    truth = rng.random(p.shape) < p
    every = np.ones(p.shape, bool)
    assert sums.calibration_error(sums.calibration(p, truth, every)) < 0.005
    bold = np.where(p > 0.5, 0.99, 0.02)
    assert sums.calibration_error(sums.calibration(bold, truth, every)) == pytest.approx(0.235, abs=0.01)


def test_pixels_below_a_hundredth_do_not_hide_a_calibration_error():
    p, truth = np.full((100, 100), 0.001), np.zeros((100, 100), bool)
    p[:2] = 0.5
    assert sums.calibration_error(sums.calibration(p, truth, np.ones_like(truth))) == pytest.approx(0.5)


def test_what_is_not_counted_changes_nothing():
    p, truth = np.full((10, 10), 0.5), np.eye(10, dtype=bool)
    some = np.zeros((10, 10), bool)
    some[:5] = True
    whole, half = sums.calibration(p[:5], truth[:5], np.ones((5, 10), bool)), sums.calibration(p, truth, some)
    assert whole == half


def test_sums_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(1)
    p, truth = rng.random((20, 20)), rng.random((20, 20)) < 0.3
    every = np.ones((10, 20), bool)
    both = sums.added([sums.calibration(p[i : i + 10], truth[i : i + 10], every) for i in (0, 10)])
    one = sums.calibration(p, truth, np.ones((20, 20), bool))
    assert both["n"] == one["n"] and both["squares"] == pytest.approx(one["squares"])


def test_brier_skill_of_truth_and_of_the_base_rate():
    truth = np.zeros((100, 100), bool)
    truth[0] = True
    every = np.ones_like(truth)
    assert sums.brier_skill(sums.calibration(truth.astype(float), truth, every)) == 1
    assert sums.brier_skill(sums.calibration(np.full(truth.shape, 0.01), truth, every)) == pytest.approx(0)
    assert sums.brier_skill(sums.calibration(np.zeros(truth.shape), truth & False, every)) is None


def test_jaccard():
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    assert sums.jaccard(a, b) == pytest.approx(1 / 3)
    assert sums.jaccard(a, a) == 1 and sums.jaccard(a & False, b & False) == 1


def test_excess_error_counts_from_the_noise_and_never_divides_by_nothing():
    assert sums.excess_ratio(3.0, 5.0, 1.0) == pytest.approx(0.5)
    assert sums.excess_ratio(0.5, 5.0, 1.0) == 0
    assert sums.excess_ratio(1.1, 0.9, 1.0) == pytest.approx(0.1 / sums.LEAST_EXCESS)
    assert sums.excess(0.5, 1.0) == sums.LEAST_EXCESS and sums.excess(3.0, 1.0) == 2


def test_crossing_is_found_where_the_first_curve_comes_to_lie_above():
    x = [0.01, 0.1, 1.0]
    assert sums.crossing(x, [1, 2, 4], [2, 2, 2]) == pytest.approx(0.1)
    assert sums.crossing(x, [1, 1, 4], [2, 2, 2]) == pytest.approx(math.sqrt(0.1))
    assert sums.crossing(x, [3, 3, 3], [2, 2, 2]) is None and sums.crossing(x, [1, 1, 1], [2, 2, 2]) is None


def test_only_the_marked_parts_of_the_readme_are_rewritten():
    text = "a\n<!-- quality:x -->\nold\n<!-- /quality -->\nb\n<!-- quality:y -->\n<!-- /quality -->\nc\n"
    new = output.rewrite(text, {"x": r"1 \1", "y": "2\n"})
    assert new == ("a\n<!-- quality:x -->\n1 \\1\n<!-- /quality -->\nb\n<!-- quality:y -->\n2\n<!-- /quality -->\nc\n")
    assert output.rewrite(new, {"x": "old"}).splitlines()[2] == "old"
    with pytest.raises(ValueError, match="quality:z"):
        output.rewrite(text, {"z": ""})


def test_the_readme_has_a_place_for_every_part():
    text = output.README.read_text()
    for name in ("targets", "detection", "probability", "multiframe", "correction", "strategy", "collateral", "stars"):
        assert output.rewrite(text, {name: "new"}) != text


def test_the_summary_names_every_missed_target():
    found = [output.at_least("one", name, 0.9, value) for name, value in (("a", 0.95), ("b", 0.8), ("c", None))]
    line = output.summary(found).splitlines()[-1]
    assert line == "| one | 1 of 2 | b 0.800 (>= 0.9) | c |"


def test_tables_say_what_was_not_measured():
    assert output.table(("a", "b"), [("x", None)]) == "| a | b |\n|---|---|\n| x | — |"
    assert output.at_least("group", "what", 0.9, None).verdict == "not measured"
    assert output.at_least("group", "what", 0.9, 0.91).met and not output.at_most("group", "what", 0.9, 0.91).met


@pytest.mark.parametrize("cfa", [*BAYER, MONO, XTRANS], ids=lambda cfa: cfa.name)
def test_positions_cover_every_pixel_once(cfa):
    places = rows_detection.positions(cfa, (12, 12))
    assert np.array_equal(np.sum(list(places.values()), axis=0), np.ones((12, 12)))
    if cfa.is_bayer:
        assert set(places) == {"R", "Gr", "Gb", "B"}
        red_rows = places["R"].any(axis=1)
        assert np.array_equal(places["Gr"].any(axis=1), red_rows) and not (places["Gb"].any(axis=1) & red_rows).any()


@pytest.mark.parametrize("cfa", [GBRG, MONO, XTRANS], ids=lambda cfa: cfa.name)
def test_a_photograph_keeps_its_colours_behind_the_filters(cfa):
    rgb = np.broadcast_to(np.array([200, 100, 50], np.uint8), (36, 36, 3))
    raw = scenes.unprocessed(rgb, cfa, (16383, 512, 10.0, 1.0, 0.6, 0.1), seed=0)
    means = {}
    for (r, c), (rows, cols) in zip(cfa.positions, [cfa.period] * len(cfa.positions), strict=True):
        means.setdefault(cfa.colour(r, c), []).append(raw.samples[r::rows, c::cols].mean() - 512)
    values = {colour: np.mean(found) for colour, found in means.items()}
    if not cfa.is_mono:
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 for v in (200, 100, 50)]
        assert values["R"] / values["G"] == pytest.approx(0.55 * linear[0] / linear[1], rel=0.03)
        assert values["B"] / values["G"] == pytest.approx(0.65 * linear[2] / linear[1], rel=0.03)
    assert raw.samples.max() <= 16383


def test_the_noise_of_a_made_photograph_is_the_one_that_is_stated():
    sensor = scenes.SENSORS[1]
    rgb = np.full((200, 200, 3), 128, np.uint8)
    raw = scenes.unprocessed(rgb, MONO, sensor, seed=1)
    shot = scenes.Shot("photo", "one", raw, scenes.NoiseModel(1 / sensor[2], sensor[3] ** 2 + 1 / 12))
    level = raw.samples.mean() - sensor[1]
    assert np.sqrt(shot.variance(np.array([level]))[0]) == pytest.approx(raw.samples.std(), rel=0.02)


def test_every_baseline_finds_a_plain_hot_pixel_and_repairs_it():
    rng = np.random.default_rng(2)
    for cfa in (RGGB, MONO):
        mosaic = scenes.Mosaic((1000 + 5 * rng.standard_normal((64, 64))).astype(np.uint16), cfa, ((100.0,),), 4095.0)
        bad = np.zeros(mosaic.shape, bool)
        bad[20, 31] = True
        samples = mosaic.samples.copy()
        samples[20, 31] = 4000
        damaged = mosaic.with_samples(samples)
        for name, peer in peers.finders().items():
            if peer.knows(cfa):
                assert peer.call([damaged])[0][20, 31], name
        for name, peer in peers.repairers().items():
            if peer.knows(cfa):
                fixed = peer.call(damaged, bad)
                assert abs(int(fixed[20, 31]) - 1000) < 40 and np.array_equal(fixed[~bad], samples[~bad]), name


def test_a_stopped_run_resumes_with_what_it_has(tmp_path, capsys):
    calls = []
    todo = [tasks.Task("row", key, 1.0, lambda key=key: calls.append(key) or [key]) for key in "abc"]
    kept = {"row": {"b": ["old"]}}
    tasks.run(todo, kept, lambda: tasks.write(tmp_path / "run.json", kept))
    assert calls == ["a", "c"] and tasks.read(tmp_path / "run.json") == {"row": {"b": ["old"], "a": ["a"], "c": ["c"]}}


def test_a_shorter_sequence_counts_with_its_last_frame():
    def row(sequence, frames, hits, misses):
        return {
            "sequence": sequence,
            "frames": frames,
            "delta": 0.2,
            "how": tables_multiframe.CALIBRATE,
            "false": 0,
        } | {
            "hits": hits,
            "misses": misses,
        }

    rows = [row("a", 1, 1, 1), row("a", 2, 2, 0), row("b", 1, 0, 2)]
    assert [point[:2] for point in tables_multiframe.curve(rows, 0.2)] == [(1, 0.25), (2, 0.5)]


def test_one_frame_is_measured_and_a_perfect_frame_of_damage_counts_right():
    from conftest import scene

    shot = scenes.Shot("made", "one", scene(shape=(96, 96)))
    rows = rows_detection.measure(shot, quick=True)
    mine = [row for row in rows if row["who"] == rows_detection.OURS]
    assert {row["kind"] for row in mine} == {"relative", "fixed", "sensor"}
    for row in mine:
        damage = inject(
            shot.mosaic, Injection(row["rate"], row["delta"], row["kind"], seed=100 + row["seed"]), frame_key="one"
        )
        assert row["hits"] + row["misses"] == damage.count
        assert sum(counts[0] for counts in row["positions"].values()) == row["hits"]
        assert row["calibration"]["bad"] == damage.count


def corrections():
    """Two cameras, one damage: (error of auto, least squares, median), noise 1."""
    return [
        {"camera": camera, "damage": "1%", "who": who, "error": error, "noise": 1.0, "pixels": 10, "used": "mlp"}
        | {"energy": 100.0, "energy_black": 50.0, "span2": 1000.0}
        for camera, errors in {
            "one": (2.0, 3.0, 5.0),
            "two": (4.0, 3.0, 2.0),
            "photos, X-Trans": (9.0, 1.0, 1.0),
        }.items()
        for who, error in zip(("auto", "least squares", "median"), errors, strict=True)
    ]


def test_a_repair_is_compared_with_each_cameras_own_best_baseline():
    figures = tables_correction.Figures(corrections())
    assert figures.cameras == ["one", "two"]
    assert figures.best("one", "1%") == "least squares" and figures.best("two", "1%") == "median"
    assert figures.to_best("one", "1%") == pytest.approx(0.5) and figures.to_best("two", "1%") == pytest.approx(3.0)
    assert figures.nmse("1%", "auto") == pytest.approx(0.03)
    assert figures.nmse("1%", "not run") is None


def test_missed_repair_targets_are_called_missed():
    found = {target.what: target for target in tables_correction.section(corrections())[0].targets}
    worst = found["1% the same, worst camera"]
    assert worst.met is False and worst.measured == "1.500"
    assert found["20% over least squares"].met is None


def test_a_rival_that_knows_some_cameras_only_sets_no_target_for_all():
    def row(camera, who, hits, false, delta):
        counts = {"hits": hits, "misses": 10 - hits, "false": false, "pixels": 1000}
        extra = {"positions": {"L": [hits, 10 - hits, false]}, "promises": {"1": [0.5, 0], "10": [5, 0], "100": [9, 0]}}
        calibration = sums.calibration(np.full((4, 4), 0.5), np.eye(4, dtype=bool), np.ones((4, 4), bool))
        head = {"camera": camera, "kind": "relative", "delta": delta, "who": who, "seed": 0, "method": "rules"}
        return [{**head, **counts, **extra, "calibration": calibration, "rate": rate} for rate in rows_detection.RATES]

    rows = [
        one
        for delta in (0.3, 0.7)
        for camera, who, hits, false in (
            ("one", "fixpix", 9, 0), ("two", "fixpix", 9, 0),
            ("one", "Siril", 10, 0),
            ("one", "Pinto 3 x 3", 5, 5), ("two", "Pinto 3 x 3", 5, 5),
        )
        for one in row(camera, who, hits, false, delta)
    ]  # fmt: skip
    found = {target.what: target for target in tables_detection.section(rows)[0].targets}
    assert found["F1 at 1%"].target == ">= 0.750, as Pinto 3 x 3 has 0.500" and found["F1 at 1%"].met
    assert found["recall at 1%"].met is False and found["precision at 1%"].met
    assert found["worst camera or position:"].met is False


def test_a_growth_law_is_found_again():
    sizes = [1, 6, 24, 150]
    assert speed_runs.exponent(sizes, [3 * s**1.5 for s in sizes]) == pytest.approx((1.5, 0), abs=1e-9)
    assert speed_runs.exponent(sizes, [7.0] * 4)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")
def test_a_process_is_measured_with_its_children_and_without_the_bench(tmp_path):
    agent = speed_runs.Agent(tmp_path)
    small = agent.run([sys.executable, "-c", "pass"])
    inner = "x = bytearray(200_000_000); x[::4096] = x[::4096]"
    large = agent.run(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"]
    )
    assert small.peak < 60 < 190 <= large.peak and large.seconds > 0
    with pytest.raises(RuntimeError, match="ended with 3"):
        agent.run([sys.executable, "-c", "raise SystemExit(3)"])
    agent.close()


def test_the_speed_bench_counts_targets_and_names_ratios():
    run = speed_runs.Run
    known = {"fixpix, fits": run(0.3, 0.4, 100), "cp, fits": run(0.1, 0.1, 1), "Siril cosme_cfa": run(0.2, 0.2, 50)}
    known |= {f"{who}, {kind}": run(0.5, 0.4, 100) for kind in ("tif", "dng", "ljpeg.dng") for who in ("fixpix", "cp")}
    frames = {
        "1 frames": run(1, 1, 9),
        "cp, 1 frames": run(1, 1, 9),
        "4 frames": run(4, 4, 9),
        "cp, 4 frames": run(2, 1, 9),
    }
    text, targets = speed.told({"known": known, "frames": frames})
    verdicts = {target.what: (target.measured, target.met) for target in targets}
    assert verdicts["fits over Siril's list"] == ("1.50", True) and verdicts["tif over Siril's list"] == ("2.50", False)
    assert verdicts["a frame of 4 frames over copying it"] == ("2.00", False)
    assert "| fixpix, fits | 0.300 | 0.400 | 100 | 3.00 |" in text and "to the power 1.00" in text
