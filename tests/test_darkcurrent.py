"""A map made under one condition speaks for another: dark current, its uncertainty, and what does not scale."""

import numpy as np
import pytest

from fixpix_cli import choosing, classical, darkcurrent, darks
from fixpix_cli.darkcurrent import Kind
from fixpix_cli.darks import Levels
from fixpix_cli.defects import DQ
from fixpix_cli.evidence import Bin, Counted, Evidence, Tally
from fixpix_cli.mosaic import Conditions
from fixpix_cli.simulate import Sensor, stars

SENSOR = Sensor(shape=(240, 320), seed=5, defects=0.01)


def evidence(conditions, sensor=SENSOR, kind="dark", scene=None, start=0):
    """Evidence of frames of some (exposure, temperature), as `calibrate` makes it."""
    total = Evidence()
    for number, (exposure, temperature) in enumerate(conditions, start):
        mosaic = sensor.expose(scene, exposure, temperature, number)
        found = classical.detect(mosaic, kind)
        facts = Conditions(exposure, 100.0, temperature, None, kind)
        bin_ = Bin.of(facts)
        tally = Tally.of(mosaic, found)
        total = total + Evidence({(0, bin_): tally}, {f"{kind}{number}": Counted(f"{number}", "", bin_, facts)})
    return total


def model_of(known):
    return darkcurrent.fit(darks.levels_of(known, 0, Bin.of(Conditions(gain=100.0)).gain))


def chosen(known, exposure, temperature, kind="light", mosaic=None, **limits):
    wanted = Conditions(exposure, 100.0, temperature, None, kind)
    frame = mosaic if mosaic is not None else SENSOR.expose(None, exposure, temperature, 90)
    return choosing.choose(known, 0, wanted, lambda: frame, lambda gain: model_of(known), **limits)


def true_excess(exposure, temperature):
    """Mean excess of every pixel over the good ones' dark current, DN."""
    return SENSOR.dark_signal(exposure, temperature) - SENSOR.dark_current * exposure * 2 ** (temperature / 6)


def made_up(doses, excess, noise=5.0, frames=9):
    """Levels of one pixel per column, and ten more that scale, so that the fit has company."""
    excess = np.asarray(excess, float)
    rate = np.linspace(5, 50, 10)
    whole = np.concatenate([excess, np.multiply.outer(doses, rate)], axis=1)
    pixels = np.arange(whole.shape[1])
    every = np.full(len(pixels), frames)
    unknown = np.full(len(pixels), np.nan)
    return [
        Levels(dose, 0.0, frames, noise, pixels, row, unknown, every) for dose, row in zip(doses, whole, strict=True)
    ]


def test_the_doubling_temperature_is_found_with_its_error():
    model = model_of(evidence([(60, -5), (60, 5), (60, 10)]))
    assert model.fitted and model.doubling == pytest.approx(6, abs=max(0.15, 2 * model.doubling_error))
    assert 0 < model.doubling_error < 1


def test_one_temperature_gives_the_stated_default_and_wide_errors():
    known = evidence([(60, 0), (120, 0)])
    model = model_of(known)
    assert not model.fitted and (model.doubling, model.doubling_error) == pytest.approx(
        (darks.DOUBLING, darks.DOUBLING_ERROR)
    )
    near, far = (np.nanmedian(model.predict(60, t)[1] / np.abs(model.predict(60, t)[0])) for t in (0, 12))
    assert far > 1.5 * near


def test_two_exposures_tell_the_linearity():
    exponent, error = model_of(evidence([(30, 0), (120, 0)])).exponent
    assert exponent == pytest.approx(1, abs=0.03) and error < 0.1


def test_another_condition_is_predicted_within_its_errors():
    model = model_of(evidence([(60, -5), (120, -5), (60, 5), (120, 5)]))
    excess, error = model.predict(30, 10)
    truth = true_excess(30, 10).reshape(-1)[model.pixels]
    hot = ((SENSOR.truth.reshape(-1)[model.pixels] & int(DQ.HOT)) != 0) & (model.kind == Kind.SCALING)
    off = ((excess - truth) / error)[hot]
    assert hot.sum() > 300
    assert (np.abs(off) < 2).mean() > 0.9 and np.median(np.abs(excess / truth - 1)[hot]) < 0.05


def test_pixels_that_do_not_scale_are_told_apart():
    doses = [10.0, 40.0, 160.0]
    laws = {
        "scaling": [30, 120, 480],
        "stuck": [500, 505, 495],
        "jumping": [900, 0, 40],
        "low": [-60, -55, -65],
        "full": [60000, 61000, 60500],
    }
    levels = made_up(doses, np.array(list(laws.values()), float).T)
    kinds = dict(zip(laws, darkcurrent.fit(levels).kind[:5], strict=True))
    assert kinds == {
        "scaling": Kind.SCALING,
        "stuck": Kind.STUCK,
        "jumping": Kind.UNSTEADY,
        "low": Kind.LOW,
        "full": Kind.SATURATED,
    }


def test_an_offset_is_not_taken_for_dark_current():
    levels = made_up([10.0, 40.0, 160.0], np.array([[24.0], [54.0], [174.0]]))
    model = darkcurrent.fit(levels)
    excess, error = model.predict(0, 0.0)
    assert model.rate[0] == pytest.approx(1, rel=0.1)
    assert excess[0] == pytest.approx(14, abs=3 * error[0]) and error[0] < 10


def test_a_pixel_that_blinks_is_not_predicted():
    levels = made_up([60.0], [[400.0]])
    levels[0].variance[0] = 300.0**2
    assert darkcurrent.fit(levels).kind[0] == Kind.UNSTEADY


def test_the_summary_names_the_facts_of_a_map():
    known = evidence([(60, -5), (60, 10), (30, 10)]) + evidence([(0, 10)], kind="bias", start=9)
    facts = darkcurrent.summary(known)
    assert facts["frames"] == 4 and facts["doubling_measured"] and facts["doubling_c"] == pytest.approx(6, abs=0.3)
    assert sum(facts["pixels"].values()) > 400 and facts["pixels"]["scaling"] > facts["pixels"]["stuck"]
    assert facts["exponent"] == pytest.approx(1, abs=0.05) and facts["reference_c"] == pytest.approx(5, abs=0.1)
    assert darkcurrent.summary(evidence([(60, 0)], kind="light")) == {} == darkcurrent.summary(Evidence())


def test_no_dark_no_model():
    assert darkcurrent.fit([]) is None
    assert model_of(evidence([(60, 0)], kind="light")) is None


def test_near_conditions_count_as_they_are():
    known = evidence([(60, 0), (60, 0), (5, -10)])
    choice = chosen(known, 60, 0)
    assert not choice.notes
    tally = known.tallies[0, Bin.of(Conditions(60, 100.0, 0.0, None, "dark"))]
    assert np.array_equal(choice.view.dq, tally.view().dq)


def test_what_a_frame_does_not_state_is_no_difference():
    known = evidence([(60, 0), (60, 0)])
    wanted = Conditions(60, None, None, None, "light")
    choice = choosing.choose(known, 0, wanted, lambda: None, lambda gain: None)
    assert not choice.notes and np.array_equal(choice.view.dq, chosen(known, 60, 0).view.dq)


def test_equally_near_conditions_are_summed():
    known = evidence([(30, 0), (60, 0), (60, 0)])
    bins, tally = known.nearest(0, Bin.of(Conditions(42, 100.0, 0.0, None, "dark")))
    assert len(bins) == 2 and tally.frames == 3


def test_short_exposures_lose_the_pixels_that_noise_hides_and_long_ones_gain():
    known = evidence([(30, 0), (30, 0)])
    measured = known.nearest(0, Bin.of(Conditions(30, 100.0, 0.0, None, "dark")))[1].view().bad
    short, long = chosen(known, 0.5, 0), chosen(known, 300, 5)
    assert "nearest darks are 30 s, 0 C; this frame is 0.5 s, 0 C" in short.notes[0]
    faint = (true_excess(0.5, 0) < 10) & (SENSOR.truth & int(DQ.HOT | DQ.WARM) != 0) & measured
    assert faint.sum() > 100 and not (short.view.bad & faint).any()
    warm = (SENSOR.truth & int(DQ.WARM)) != 0
    assert (long.view.bad & warm).sum() >= (measured & warm).sum() > 0
    assert "not known" in long.notes[0]


def test_a_bright_sky_hides_what_a_dark_shows():
    known = evidence([(30, 0), (30, 0)])
    sky = np.full(SENSOR.shape, 400.0)
    dark, bright = (chosen(known, 5, 0, mosaic=SENSOR.expose(s, 5, 0, 91)) for s in (None, sky))
    assert 0 < bright.view.bad.sum() < 0.9 * dark.view.bad.sum()


def test_the_prediction_comes_nearer_to_the_truth_than_the_nearest_darks():
    known = evidence([(60, 0), (60, 0), (60, 10)])
    nearest = known.nearest(0, Bin.of(Conditions(2, 100.0, -10.0, None, "dark")))[1].view().bad
    predicted = chosen(known, 2, -10).view.bad
    truth = true_excess(2, -10) > 5 * SENSOR.read_noise
    alone, model = ((bad & truth).sum() / (bad | truth).sum() for bad in (nearest, predicted))
    assert model > 1.5 * alone


def test_threshold_and_promise_choose_among_the_predicted():
    known = evidence([(60, 0), (60, 10)])
    counts = [chosen(known, 5, 0, threshold=t).view.bad.sum() for t in (0.1, 0.5, 0.9)]
    assert counts[0] > counts[1] > counts[2] > 0
    promised = [chosen(known, 5, 0, max_false=n).view.bad.sum() for n in (0, 1, 100)]
    assert promised[0] < promised[1] < promised[2]


def test_flats_tell_dead_pixels_and_not_hot_ones():
    scene = np.full(SENSOR.shape, 120.0)
    known = evidence([(60, 0)]) + evidence([(20, 0)] * 2, kind="flat", scene=scene, start=10)
    alone = chosen(evidence([(60, 0)]), 60, 0).view.bad
    both = chosen(known, 60, 0).view.bad
    dead = (SENSOR.truth & int(DQ.DEAD)) != 0
    assert (both & dead).sum() > 0.9 * dead.sum() > (alone & dead).sum()
    assert (both & ~alone & ~dead & ((SENSOR.truth & int(DQ.LOW_QE)) == 0)).sum() < 5


def test_lights_and_darks_of_one_condition_both_count():
    sky = stars(SENSOR.shape, 3)
    lights = evidence([(60, 0)] * 2, kind="light", scene=np.full_like(sky, 60.0), start=20)
    both = chosen(evidence([(60, 0)]) + lights, 60, 0).view.bad
    for one in (evidence([(60, 0)]), lights):
        assert not (chosen(one, 60, 0).view.bad & ~both).any()


def test_a_bias_is_no_unstated_exposure():
    dark, bias = (
        Bin.of(Conditions(*said, None, kind)) for said, kind in (((60, None, 0), "dark"), ((0, None, 0), "bias"))
    )
    wanted = Bin.of(Conditions(30, None, 0, None, "light"))
    assert dark.distance(wanted) == 1 < bias.distance(wanted)


def test_another_gain_is_not_predicted():
    known = evidence([(60, 0)])
    wanted = Conditions(5, 1600.0, 0.0, None, "light")
    choice = choosing.choose(
        known, 0, wanted, lambda: None, lambda gain: darkcurrent.fit(darks.levels_of(known, 0, gain))
    )
    assert "stops from this frame's" in choice.notes[0] and choice.view.bad.any()
