"""The int8 twin of the unet: whose twin it is, when it serves, and that it says the same."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import scene

from fixpix_cli.cfa import BAYER, MONO
from fixpix_cli.inject import Injection, inject
from fixpix_cli.nets import detectors, registry
from fixpix_cli.nets.processor import multiplies_bytes
from fixpix_cli.normalise import features


def test_the_twin_was_made_from_the_unet_that_is_shipped():
    """After a new unet: python models/train/quantise.py."""
    card = registry.show("unet-int8").card
    assert card.training["quantised_from"] == registry.read("unet").sha256
    assert card.serving == registry.show("unet").card.serving


@pytest.mark.parametrize(
    "text, fast",
    [
        ("processor : 0\nflags\t\t: fpu sse2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("flags\t\t: fpu sse2 avx2 avx512f\n", False),
        ("Features : fp asimd asimddp\n", False),
        ("", False),
    ],
)
def test_it_serves_where_the_processor_says_so(tmp_path, text, fast):
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    assert multiplies_bytes(info) is fast
    assert multiplies_bytes(tmp_path / "none") is False


@pytest.mark.parametrize("fast", [False, True])
def test_the_outcome_says_which_one_served(monkeypatch, fast):
    monkeypatch.setattr(detectors, "multiplies_bytes", lambda: fast)
    detectors.shipped_unet.cache_clear()
    try:
        method = detectors.detect(scene(MONO, shape=(96, 128))).method
    finally:
        detectors.shipped_unet.cache_clear()
    assert method == ("rules+unet-int8" if fast else "rules+unet")


@pytest.mark.skipif(not multiplies_bytes(), reason="without VNNI its sums overflow, and it never serves")
@pytest.mark.parametrize("cfa", [MONO, BAYER[1]], ids=lambda cfa: cfa.name)
def test_both_say_the_same(cfa):
    clean = scene(cfa, shape=(300, 400))
    damage = inject(clean, Injection(0.01, 0.7, seed=3))
    seen = features.Seen.of(clean.with_samples(damage.samples).light())
    one, two = (detectors.UnetDetector.open(name).ratios_of(seen) for name in ("unet", "unet-int8"))
    near = np.abs(one) < 10
    assert np.sqrt(np.mean((one - two)[near] ** 2)) < 0.5
    assert np.count_nonzero((one > 5) != (two > 5)) <= 0.03 * np.count_nonzero(one > 5)
