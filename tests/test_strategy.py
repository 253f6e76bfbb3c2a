"""Which method `correct --auto` takes."""

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import strategy
from fixpix_cli.cfa import MONO, RGGB, XTRANS
from fixpix_cli.jobs.repairing import Repair, repair_plane


@pytest.mark.parametrize(
    "rate, mlp, vit, method",
    [
        (0.001, 1.0, True, "mlp"),
        (0.7, 1.0, True, "mlp"),
        (0.85, 1.0, True, "vit"),
        (0.85, 1.0, False, "mlp"),
        (0.3, 0.2, True, "least-squares"),
        (0.3, None, False, "prediction"),
        (0.8, None, False, "least-squares"),
    ],
)
def test_the_method_follows_the_rate_and_what_the_nets_know(rate, mlp, vit, method):
    assert strategy.choose(rate, mlp, vit) == method


@pytest.mark.parametrize(
    "cfa, rate, method",
    [
        (RGGB, 0.01, "mlp"),
        (MONO, 0.85, "vit"),
        (RGGB, 0.85, "vit"),
        (XTRANS, 0.2, "prediction"),
        (XTRANS, 0.85, "least-squares"),
    ],
)
def test_a_plane_is_repaired_by_it(tmp_path, cfa, rate, method):
    clean = scene(cfa, (96, 128))
    bad = np.random.default_rng(1).random(clean.shape) < rate
    damaged = clean.with_samples(np.where(bad, np.uint16(9), clean.samples))
    name, edit = repair_plane(damaged, bad, Repair(), tmp_path / "a.fits")
    assert name == method
    repaired = edit.applied(damaged.samples)
    assert np.array_equal(repaired[~bad], clean.samples[~bad])
    error = np.abs(repaired[bad].astype(float) - clean.samples[bad])
    assert np.median(error) < 0.25 * np.median(clean.samples)
