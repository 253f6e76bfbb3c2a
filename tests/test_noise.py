"""The noise of a frame from the frame itself: small frames, gaps, and damage below the black level."""

from __future__ import annotations

import numpy as np
import pytest

from fixpix_cli.cfa import MONO, RGGB, XTRANS
from fixpix_cli.levels import levels
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.noise import NoiseModel


@pytest.mark.parametrize("cfa", [MONO, RGGB, XTRANS], ids=lambda cfa: cfa.name)
@pytest.mark.parametrize("shape", [(24, 30), (40, 60), (60, 80), (90, 90), (128, 128), (300, 280)], ids=str)
def test_frames_of_every_size_have_their_noise(cfa, shape):
    """Lost otherwise: an eighth of a small frame's bad pixels, many good ones: the noise was that of rounding."""
    rng = np.random.default_rng(0)
    samples = np.rint(1000 + rng.normal(0, 10, shape) + np.arange(shape[1]) * 2).astype(np.uint16)
    sigma = NoiseModel.of(Mosaic(samples, cfa, ((100.0,),), 4095.0)).sigma(np.array([900.0, 1100.0]))
    assert np.all((sigma > 7) & (sigma < 14)), sigma


@pytest.mark.parametrize("shape", [(120, 120), (600, 500)], ids=str)
def test_gaps_leave_the_noise(shape):
    """Lost otherwise: the second look at 4 to 9 % damage, which leaves few blocks whole, without any noise."""
    rng = np.random.default_rng(1)
    samples = (1000 + rng.normal(0, 10, shape)).astype(np.float32)
    samples[rng.random(shape) < 0.07] = np.nan
    sigma = float(NoiseModel.of(Mosaic(samples, MONO, ((0.0,),), 65535.0)).sigma(np.array([1000.0]))[0])
    assert 8 < sigma < 12


def test_what_lies_below_black_does_not_make_noise_without_bounds():
    """Lost otherwise: 85 % damage in a frame with a high black level; the noise was 270 times the middle."""
    rng = np.random.default_rng(2)
    level = np.linspace(2000, 40_000, 512)
    samples = level + rng.uniform(-1, 1, (512, 512)) * (2000 + 0.9 * np.maximum(level - 4800, 0))
    dark = rng.uniform(0, 4000, (512, 512)) + 36_000 * (rng.random((512, 512)) < 0.4)
    samples = np.where(level < 4800, dark, np.clip(samples, 0, 65_000))
    sigma = NoiseModel.of(Mosaic(samples.astype(np.uint16), MONO, ((4800.0,),), 65535.0)).sigma(np.array([5000.0]))[0]
    assert 500 < sigma < 20_000


def test_less_noise_on_request_and_never_more():
    rng = np.random.default_rng(3)
    seen = levels(Mosaic(rng.integers(0, 4000, (200, 200)).astype(np.uint16), MONO, ((0.0,),), 4095.0))
    middle = np.array([seen.middle[0, 0]], np.float32)
    quiet = seen.quieter(0.25)
    assert seen.sigma(middle.copy(), (0, 0))[0] > 0.5 * (middle[0] + seen.floor[0, 0])
    assert np.isclose(quiet.sigma(middle.copy(), (0, 0))[0], 0.25 * (middle[0] + seen.floor[0, 0]), rtol=1e-3)
    assert quiet.quieter(0.5) is quiet and quiet.samples is seen.samples
