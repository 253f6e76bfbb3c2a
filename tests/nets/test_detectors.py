"""The unet detector's way of feeding a net, with a net whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import files, score
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, RGGB, XTRANS, Cfa
from fixpix_cli.crowds import crowds
from fixpix_cli.errors import FrameError, ModelError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.cards import Card
from fixpix_cli.nets.detectors import detect, together
from fixpix_cli.nets.sessions import Session
from fixpix_cli.nets.spots import SpotDetector, shipped_spot
from fixpix_cli.nets.unets import UnetDetector
from fixpix_cli.normalise import features
from fixpix_cli.simulate import Sensor, stars

CMYG = Cfa(("CY", "MG"))


class Known:
    """Answers five times the greater of the features above and below, less 5."""

    def run(self, names, inputs):
        x = inputs["features"]
        return [5 * np.maximum(x[:, 8:12], x[:, 12:16]) - 5]


AUTO = {"agreement": 2.0, "caution": 1.5, "alone": 5.0, "dense_rate": 0.1, "third_rate": 0.5, "fourth_rate": 0.5}


def detector(**serving):
    facts = json.loads(registry.show("mlp").card.to_json())
    facts |= {
        "task": "detect",
        "family": "unet",
        "inputs": {"features": ["n", features.CHANNELS, "h", "w"], "mono": ["n", 1, 1, 1]},
        "outputs": {"ratio": ["n", 4, "h", "w"]},
        "normalisation": features.NORMALISATION,
        "cfa": ["MONO", "RGGB", "GRBG", "GBRG", "BGGR", "XTRANS", "QUAD_RGGB"],
        "serving": {"multiple": 8, "halo": 48, "temperature": 1.0} | AUTO | serving,
    }
    return UnetDetector(Session(Card.parse(json.dumps(facts), "known"), "known", "", Known()))


def frame(cfa, shape):
    rng = np.random.default_rng(5)
    return Mosaic(np.rint(2000 + rng.normal(0, 6, shape)).astype(np.uint16), cfa, ((512.0,),), 16383.0)


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
@pytest.mark.parametrize("shape", [(61, 83), (530, 600), (16, 1100)], ids=str)
def test_every_outlier_is_found_where_it_is(cfa, shape):
    mosaic = frame(cfa, shape)
    rng = np.random.default_rng(6)
    bad = np.zeros(shape, bool)
    bad.reshape(-1)[rng.choice(bad.size, 12, replace=False)] = True
    bad[0, 0] = bad[-1, -1] = True
    hurt = mosaic.with_samples(np.where(bad, 9000, mosaic.samples).astype(np.uint16))
    found = detector()(hurt)
    assert found.probability.shape == shape and found.probability.dtype == np.float32
    assert np.array_equal(found.probability > 0.5, bad)
    assert 0.3 < found.rate / bad.mean() < 3


def test_masked_borders_and_nan_are_never_bad():
    samples = frame(BAYER[2], (64, 80)).samples.astype(np.float32)
    samples[:, :7] = 16000
    samples[30, 40] = np.nan
    found = detector()(Mosaic(samples, BAYER[2], ((512.0,),), 16383.0, Area(0, 7, 64, 80)))
    assert not found.probability[:, :7].any() and found.probability[30, 40] == 0


def test_temperature_divides_the_evidence():
    mosaic = frame(MONO, (40, 40))
    assert np.allclose(detector(temperature=2.0).ratios(mosaic) * 2, detector().ratios(mosaic), atol=1e-5)


@pytest.mark.parametrize("name", ["unet", "unet-dense", "unet-crowds"])
def test_the_card_says_which_patterns_are_known(name):
    card = UnetDetector.open(name).session.card
    known = (MONO, *BAYER, XTRANS, XTRANS.shifted(2, 1), QUAD_RGGB.shifted(1, 0))
    assert all(card.knows(cfa) for cfa in known) and not card.knows(CMYG)


def test_an_unknown_pattern_is_refused():
    with pytest.raises(FrameError, match="CYMG"):
        detector()(Mosaic(np.ones((24, 24), np.uint16), CMYG))


def test_a_corrector_is_no_detector():
    with pytest.raises(ModelError, match="family 'mlp'"):
        UnetDetector.open("mlp")


@pytest.mark.parametrize("value", [None, "8", True])
def test_a_card_without_its_numbers_is_refused(value):
    with pytest.raises(ModelError, match="halo"):
        detector(halo=value).ratios(frame(MONO, (16, 16)))


def no_spot():
    """A spot detector for which every frame has too many candidates."""
    shipped = shipped_spot().session
    return SpotDetector(replace(shipped, card=replace(shipped.card, serving=shipped.card.serving | {"most_share": -1})))


def test_the_rules_alone_where_the_nets_do_not_help():
    mosaic = frame(MONO, (64, 64))
    mosaic.samples[20, 20] = 9000
    assert detect(mosaic).method == "spot+verdict"
    assert detect(mosaic, spot=no_spot(), net=detector()).method == "rules+unet"
    assert detect(mosaic, "dark").method == "rules"
    assert detect(Mosaic(mosaic.samples, XTRANS, ((512.0,),), 16383.0)).method == "spot"
    xtrans = Mosaic(mosaic.samples, XTRANS, ((512.0,),), 16383.0)
    assert detect(xtrans, spot=no_spot(), net=detector()).method == "rules+unet"
    assert detect(Mosaic(mosaic.samples, CMYG, ((512.0,),), 16383.0)).method == "rules"


def test_a_second_look_at_dense_damage():
    crowded = scene(MONO, shape=(200, 200))
    damage = inject(crowded, Injection(0.3, 0.7, seed=2))
    damaged, seen = crowded.with_samples(damage.samples), []

    class Dense(UnetDetector):
        def ratios_of(self, plane, wanted=None, threads=1):
            if plane.trusted.shape != damage.dq.shape:  # small parts, to see whether damage may be dense
                return np.full(plane.trusted.shape, -9.0, np.float32)
            seen.append(plane.trusted.mean())
            size = 9.0 if len(seen) == 1 else 5.0
            return np.where(damage.dq != 0, size, -size).astype(np.float32)

    found = detect(damaged, net=detector(dense_rate=1e-6), dense=Dense(detector().session), judged=False)
    assert found.method == "unet, second look" and len(seen) == 1 and 0.2 < seen[0] < 0.95
    assert np.array_equal(found.probability > 0.5, damage.dq != 0) and found.rate == pytest.approx(0.3, abs=0.01)
    seen.clear()
    twice = Dense(detector(third_rate=1e-6).session)
    found = detect(damaged, net=detector(dense_rate=1e-6), dense=twice, judged=False)
    assert found.method == "unet, third look" and len(seen) == 2
    evidence = 7 * np.where(damage.dq != 0, 1, -1) - twice.serving("caution") * (1 - found.rate)
    odds = np.log(found.probability / (1 - found.probability)) - np.log(found.rate / (1 - found.rate))
    assert np.allclose(odds, evidence, atol=1e-2)
    seen.clear()
    often = Dense(detector(third_rate=0.2, fourth_rate=0.2).session)
    found = detect(damaged, net=detector(dense_rate=1e-6), dense=often, judged=False)
    assert found.method == "unet, fourth look" and len(seen) == 3


def test_a_scene_brighter_than_half_of_white_is_not_taken_for_the_damage():
    """There 70 % of damage at d = 0.7 is dark alone, and the good pixels are the fewer; but they are alike."""
    rng = np.random.default_rng(8)
    samples = np.clip(rng.normal(12000, 40, (288, 288)), 0, 16383).astype(np.uint16)
    clean = Mosaic(samples, MONO, white=16383.0)
    damage = inject(clean, Injection(0.6, 0.7, seed=5))
    ratios = score.detection(detect(clean.with_samples(damage.samples)).probability > 0.3, damage.dq != 0).ratios()
    assert ratios["recall"] > 0.9 and ratios["precision"] > 0.9


@pytest.mark.parametrize("cfa", [MONO, BAYER[0]], ids=lambda cfa: cfa.name)
def test_a_white_card_in_a_dark_room_is_not_taken_for_the_damage(cfa):
    """Around it the bright pixels are the bad ones, on it the dark ones; nets that trusted lost nearly all of it."""
    rng = np.random.default_rng(6)
    samples = rng.normal(1200, 25, (320, 320))
    card = np.s_[96:224, 96:224]
    samples[card] = rng.normal(11500, 60, (128, 128))
    clean = Mosaic(np.round(samples).astype(np.uint16), cfa, white=16383.0)
    damage = inject(clean, Injection(0.7, 0.7, seed=5))
    flagged = detect(clean.with_samples(damage.samples)).probability >= 0.3
    for part in (card, np.s_[:96]):
        ratios = score.detection(flagged[part], damage.dq[part] != 0).ratios()
        assert ratios["recall"] > 0.97 and ratios["precision"] > 0.93


@pytest.mark.parametrize("rate", [0.2, 0.6])
@pytest.mark.parametrize("cfa", [XTRANS.shifted(1, 2), QUAD_RGGB.shifted(1, 0)], ids=["XTRANS", "QUAD"])
def test_dense_damage_where_colours_are_no_grid(cfa, rate):
    """Lost otherwise: the rules alone find nothing where most is bad."""
    clean = scene(cfa, shape=(216, 240))
    damage = inject(clean, Injection(rate, 0.7, seed=3))
    found = detect(clean.with_samples(damage.samples))
    assert found.method.startswith("unet, ")
    told = score.detection(found.probability >= 0.3, damage.dq != 0).ratios()
    assert told["recall"] > 0.98 and told["precision"] > 0.97


@pytest.mark.data
def test_most_pixels_bad_in_a_bright_scene_with_a_high_black_level(data):
    """Lost otherwise: all of 85 % damage, which was taken for noise: of two multispectral cameras 3 % was found."""
    whole = files.load(data / "lab" / "rededge_IMG_0000_2.tif").mosaics[0]
    clean = whole.cropped(Area(200, 300, 712, 812))
    damage = inject(clean, Injection(0.85, 0.7, seed=5))
    ratios = score.detection(detect(clean.with_samples(damage.samples)).probability > 0.3, damage.dq != 0).ratios()
    assert ratios["recall"] > 0.9 and ratios["precision"] > 0.85


@pytest.mark.parametrize("thorough", [False, True])
def test_what_shows_nothing_but_noise_is_never_densely_damaged(thorough):
    """A dark of a camera that clips at its black level, of unknown kind: half of its samples are 0."""
    rng = np.random.default_rng(9)
    samples = np.rint(np.maximum(rng.normal(0, 5, (400, 400)), 0)).astype(np.uint16)
    found = detect(Mosaic(samples, MONO, white=65535.0), thorough=thorough)
    assert np.count_nonzero(found.probability > 0.3) < 0.01 * samples.size


def test_where_crowds_are_many_the_closer_look_is_at_every_pixel():
    clean = scene(MONO, shape=(360, 480))
    damage = inject(clean, Injection(0.01, 0.7, pattern="cluster:2", seed=4))
    ratios = score.detection(detect(clean.with_samples(damage.samples)).probability > 0.3, damage.dq != 0).ratios()
    assert ratios["recall"] > 0.97 and ratios["precision"] > 0.95


def test_caution_is_for_short_exposures():
    mosaic = frame(MONO, (64, 64))
    for excess, nets in ((35, {"net": detector(caution=3.0), "spot": no_spot()}), (60, {})):
        mosaic.samples[20, 20] = 2000 + excess
        short, long = (detect(mosaic, exposure=s, **nets).probability for s in (0.01, 60.0))
        assert short[20, 20] < long[20, 20]


def test_in_texture_the_prior_of_a_single_frame_is_not_that_of_the_rules_alone():
    """Lost otherwise: good pixels of textured frames, which rules take for damage that is not there."""
    rng = np.random.default_rng(3)
    rough = rng.normal(size=(262, 262))
    weight = np.exp(-2.0 * np.arange(-3, 4) ** 2)
    soft = sum(a * b * rough[i : i + 256, j : j + 256] for i, a in enumerate(weight) for j, b in enumerate(weight))
    texture = 1500 * np.exp(0.5 * soft / soft.std()) + rng.normal(0, 10, soft.shape)
    clean = Mosaic(np.clip(np.round(texture), 0, 16383).astype(np.uint16), MONO, ((0.0,),), 16383.0)
    damage = inject(clean, Injection(0.0003, 0.7, seed=2))
    damaged, bad = clean.with_samples(damage.samples), damage.dq != 0
    one, many = (detect(damaged, spot=no_spot(), thorough=thorough) for thorough in (False, True))
    assert one.method == many.method == "rules+unet"
    assert one.rate < many.rate / 2
    one_false, many_false = (np.count_nonzero((found.probability >= 0.3) & ~bad) for found in (one, many))
    assert one_false < many_false / 2


@pytest.mark.parametrize("pattern", ["cluster:3", "cluster:5", "columns", "rows"])
def test_clusters_and_lines_are_found(pattern):
    """Rules alone find less than a quarter of them, a first look of the nets half of the rows."""
    clean = scene(BAYER[0], shape=(360, 480))
    damage = inject(clean, Injection(0.005, 0.7, pattern=pattern, seed=4))
    found = detect(clean.with_samples(damage.samples))
    ratios = score.detection(found.probability > 0.3, damage.dq != 0).ratios()
    assert found.method.startswith("rules+unet, second look at clusters")
    assert ratios["recall"] > 0.9 and ratios["precision"] > 0.95


def crowded_in(suspects, below, rate):
    """`crowds` of masks."""
    pixels = np.flatnonzero(suspects)
    return crowds(suspects.shape, pixels, below.reshape(-1)[pixels], rate)


def test_a_crowd_is_more_suspects_than_chance_puts_side_by_side():
    suspects = np.zeros((200, 240), bool)
    suspects[::20, ::20] = True  # one in four hundred, each alone
    assert crowded_in(suspects, suspects, 0.0025) is None
    suspects[100:104, 100:104] = True
    crowded = crowded_in(suspects, suspects, 0.0025)
    assert crowded[96:108, 96:108].all() and crowded.mean() < 0.03
    suspects[:, 31] = True
    assert crowded_in(suspects, suspects, 0.0025)[:, 28:35].all()
    assert crowded_in(suspects, np.zeros_like(suspects), 0.0025) is None


@pytest.mark.parametrize("rate", [0.0001, 0.01, 0.1])
def test_scattered_suspects_are_no_crowd(rate):
    suspects = np.random.default_rng(1).random((600, 700)) < rate
    crowded = crowded_in(suspects, suspects, rate)
    assert crowded is None or crowded.mean() < 0.02


@pytest.mark.parametrize("cfa", [MONO, RGGB], ids=lambda cfa: cfa.name)
def test_no_star_is_taken_for_a_cluster(cfa):
    sensor = Sensor(shape=(240, 320), cfa=cfa, seed=5, defects=0.0)
    sky = stars((240, 320), 6, 120, 1.5)
    flagged = detect(sensor.expose(sky, 60.0), exposure=60.0).probability > 0.3
    assert np.count_nonzero(flagged) <= 8  # of 120 stars sharper than optics make them


def test_only_wanted_tiles_are_judged():
    mosaic, wanted = frame(MONO, (600, 700)), np.zeros((600, 700), bool)
    mosaic.samples[20, 20] = mosaic.samples[590, 690] = 9000
    wanted[0, 0] = True
    seen = features.Seen.of(mosaic)
    part, whole = detector().ratios_of(seen, wanted), detector().ratios_of(seen)
    assert np.array_equal(part[:512, :512], whole[:512, :512]) and part[20, 20] > 3
    assert not part[512:].any() and not part[:, 512:].any()


def test_both_must_speak_for_a_defect():
    rules, net = np.float32([10, 10, -12, 4]), np.float32([10, -3, 12, 6])
    assert together(rules, net, 2.0).tolist() == [10, -1, -10, 5]


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_rules_and_the_shipped_net_find_what_was_damaged(cfa):
    clean = scene(cfa, shape=(360, 480))
    damage = inject(clean, Injection(0.003, 0.7, seed=9))
    damaged = clean.with_samples(damage.samples)
    for spot, method in ((None, "spot+verdict"), (no_spot(), "rules+unet")):
        found = detect(damaged, spot=spot)
        assert found.method.startswith(method)
        ratios = score.detection(found.probability > 0.5, damage.dq != 0).ratios()
        assert ratios["precision"] > 0.97 and ratios["recall"] > 0.9


@pytest.mark.parametrize(
    "samples, why",
    [
        (np.zeros((40, 40), np.uint16), "all samples are 0"),
        (np.full((40, 40), 65535, np.uint16), "all samples are 65535"),
        (np.full((40, 40), np.nan, np.float32), "no sample has a value"),
    ],
)
def test_where_nothing_can_be_judged_the_method_says_so(samples, why):
    found = detect(Mosaic(samples, BAYER[0]))
    assert why in found.method and not found.probability.any()


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_floats_of_any_size_are_judged_alike(size):
    rng = np.random.default_rng(2)
    samples = rng.normal(1, 0.01, (120, 160))
    bad = np.zeros(samples.shape, bool)
    bad.reshape(-1)[rng.choice(bad.size, 20, replace=False)] = True
    samples[bad] *= 1.7
    found = detect(Mosaic((samples * size).astype(np.float32), MONO, ((0.0,),), 4 * size))
    assert np.array_equal(found.probability > 0.9, bad)


def test_a_frame_of_gaps_is_judged_by_what_is_left():
    rng = np.random.default_rng(4)
    samples = rng.normal(1000, 10, (200, 300)).astype(np.float32)
    samples[50, 60] = samples[120, 130] = 1700
    samples[rng.random(samples.shape) < 0.5] = np.nan
    samples[50, 60], samples[20, 20] = 1700, np.inf
    flagged = np.argwhere(detect(Mosaic(samples, MONO)).probability > 0.5)
    assert [50, 60] in flagged.tolist() and len(flagged) <= 30  # of 30,000


@pytest.mark.parametrize("spread", [0.2, 0.3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("kind", [None, "dark"])
def test_a_frame_quieter_than_its_steps_keeps_its_pixels(kind, spread):
    """Every pixel that is one off stands out of eight equal neighbours."""
    samples = np.random.default_rng(4).normal(100, spread, (300, 300))
    quiet = Mosaic(np.rint(samples).astype(np.uint16), RGGB)
    quiet.samples[150, 150] = 130
    flagged = detect(quiet, kind).probability > 0.3
    assert flagged[150, 150] and np.count_nonzero(flagged) <= 3
