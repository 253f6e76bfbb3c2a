"""Floor 1. A sensor whose every defect is known: scenes, darks and lights with truth.

Signal chain: scene in DN/s of the sensor's colour filters, times exposure and
each pixel's response, plus dark current (log-normal over pixels, doubling every
6 C), Poisson noise, Gaussian read noise, black level, clipping, rounding.
Everything follows from the sensor's seed and the frame's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .cfa import RGGB, Cfa
from .defects import DQ
from .mosaic import Array, Mosaic

#: Defect type -> share of the defects.
SHARES: tuple[tuple[DQ, float], ...] = (
    (DQ.HOT, 0.55),
    (DQ.WARM, 0.2),
    (DQ.DEAD, 0.1),
    (DQ.LOW_QE, 0.05),
    (DQ.TELEGRAPH, 0.05),
    (DQ.SATURATED, 0.05),
)
#: Relative response of the filters under the simulated light.
_RESPONSE = {"R": 0.55, "G": 1.0, "B": 0.65, "L": 1.0}


@dataclass(frozen=True)
class Sensor:
    """A simulated sensor.

    Parameters
    ----------
    shape : (H, W)
    cfa : Cfa
    seed : int
    defects : float
        Share of defective pixels.
    black, white : int, DN
    gain : float, electrons per DN
    read_noise : float, DN
    dark_current : float, DN/s
        Median of the good pixels at 0 C.
    """

    shape: tuple[int, int] = (320, 480)
    cfa: Cfa = RGGB
    seed: int = 0
    defects: float = 0.002
    black: int = 512
    white: int = 16383
    gain: float = 2.0
    read_noise: float = 4.0
    dark_current: float = 0.05

    @cached_property
    def truth(self) -> npt.NDArray[np.int32]:
        """(H, W) int32 DQ bits of the defects."""
        rng = np.random.default_rng([self.seed, 11])
        dq = np.zeros(self.shape, np.int32)
        count = round(self.defects * dq.size)
        where = rng.choice(dq.size, count, replace=False)
        kinds, shares = zip(*SHARES, strict=True)
        drawn = rng.choice(len(kinds), count, p=np.array(shares) / sum(shares))
        dq.reshape(-1)[where] = np.array([int(kinds[i]) for i in drawn], np.int64) | int(DQ.DO_NOT_USE)
        return dq

    @cached_property
    def _physics(self) -> tuple[Array, Array, Array]:
        """Dark current at 0 C in DN/s, response, and height of telegraph steps in DN, per pixel."""
        rng = np.random.default_rng([self.seed, 12])
        current = self.dark_current * rng.lognormal(0, 0.3, self.shape)
        response = 1 + 0.01 * rng.standard_normal(self.shape)
        hot, warm = self._has(DQ.HOT), self._has(DQ.WARM)
        current[hot] = rng.lognormal(np.log(60.0), 0.7, np.count_nonzero(hot))
        current[warm] = rng.uniform(3, 8, np.count_nonzero(warm))
        response[self._has(DQ.DEAD)] = 0
        low = self._has(DQ.LOW_QE)
        response[low] = rng.uniform(0.2, 0.6, np.count_nonzero(low))
        step = np.zeros(self.shape)
        blink = self._has(DQ.TELEGRAPH)
        step[blink] = rng.uniform(300, 2000, np.count_nonzero(blink))
        return current, response, step

    def _has(self, kind: DQ) -> npt.NDArray[np.bool_]:
        return (self.truth & np.int32(kind)) != 0

    def dark_signal(self, exposure: float, temperature: float = 0.0) -> Array:
        """(H, W) float64: what each pixel's dark current gives on average, DN above black."""
        signal: Array = self._physics[0] * exposure * 2 ** (temperature / 6)
        return signal

    def expose(self, scene: Array | None, exposure: float, temperature: float = 0.0, number: int = 0) -> Mosaic:
        """Take a frame.

        Parameters
        ----------
        scene : (H, W) float array, DN/s of white light, or None
            None: a dark frame.
        exposure : float, s
        temperature : float, C
        number : int
            Of the frame: other noise and telegraph states.
        """
        rng = np.random.default_rng([self.seed, 13, number])
        _, response, step = self._physics
        signal = self.dark_signal(exposure, temperature)
        if scene is not None:
            rows, cols = self.cfa.period
            filters = np.empty(self.shape)
            for r, c in self.cfa.positions:
                filters[r::rows, c::cols] = _RESPONSE.get(self.cfa.colour(r, c), 0.7)
            signal = signal + scene * filters * response * exposure
        signal = signal + np.where(rng.random(self.shape) < 0.5, step, 0)
        electrons = rng.poisson(np.maximum(signal, 0) * self.gain)
        dn = self.black + electrons / self.gain + self.read_noise * rng.standard_normal(self.shape)
        dn[self._has(DQ.SATURATED)] = self.white
        samples = np.clip(np.rint(dn), 0, self.white).astype(np.uint16)
        return Mosaic(samples, self.cfa, ((float(self.black),),), float(self.white))


def stars(
    shape: tuple[int, int], seed: int, count: int = 150, fwhm: float = 2.6, shift: tuple[float, float] = (0, 0)
) -> Array:
    """(H, W) float scene of a star field over a sky gradient, DN/s; `shift` moves the sky (dither)."""
    rng = np.random.default_rng([seed, 21])
    height, width = shape
    y, x = np.mgrid[:height, :width]
    scene = 4.0 + 2.0 * x / width + 1.5 * y / height
    sigma = fwhm / 2.3548
    for _ in range(count):
        row, col = rng.uniform(0, height) + shift[0], rng.uniform(0, width) + shift[1]
        flux = 60 * rng.pareto(1.2) + 40
        top, left = int(row) - 8, int(col) - 8
        part = (slice(max(0, top), max(0, top + 17)), slice(max(0, left), max(0, left + 17)))
        distance = (y[part] - row) ** 2 + (x[part] - col) ** 2
        scene[part] += min(flux, 5000) / (2 * np.pi * sigma**2) * np.exp(-distance / (2 * sigma**2))
    return scene


def landscape(shape: tuple[int, int], seed: int) -> Array:
    """(H, W) float scene with smooth shading, soft edges and fine texture, DN/s, about 50 to 4000."""
    rng = np.random.default_rng([seed, 22])
    height, width = shape
    y, x = np.mgrid[:height, :width] / max(shape)
    scene = 900 + 500 * np.sin(3 * x + 2 * y) + 300 * np.cos(5 * y)
    for _ in range(12):
        angle, place = rng.uniform(0, np.pi), rng.uniform(0, 1)
        edge = np.tanh((np.cos(angle) * x + np.sin(angle) * y - place) * max(shape) / rng.uniform(1.5, 6))
        scene = scene + rng.uniform(-250, 250) * edge
    texture = rng.standard_normal((height + 4, width + 4))
    smooth = sum(texture[i : i + height, j : j + width] for i in range(5) for j in range(5)) / 5
    return np.clip(scene + 40 * smooth, 50, 4000)
