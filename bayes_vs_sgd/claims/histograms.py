"""Histograms of a mode's singular value under label noise: SGD is of Ito's law, not of Stratonovich's."""

from itertools import pairwise

import jax
import numpy as np
import scipy.stats
from scipy.integrate import quad

from ..dynamics import SGD, LabelNoise
from ..theory.collapse import DeepModeLaw, square_law
from .claim import Reading, claim, mean
from .modes import chain, final_products

SETTINGS = ((2, 1.0, 0.4), (2, 0.6, 0.5), (3, 1.0, 0.3))
"""Depth, s* and c."""
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
AFTER_RICHARDSON = 0.02
"""Relative: what a finite learning rate leaves of a bin's share after extrapolation in the rate."""


@claim(
    "H5",
    "The histogram of a mode under label noise is that of the Ito equation; a Fokker-Planck code that adds the drift g dg/dw is "
    "of Stratonovich's, another law",
    "derived: a step of SGD is unbiased given where it starts",
)
def histogram(seed: int) -> list[Reading]:
    """Shares of label-noise SGD of the library in the quarters of Ito's law, extrapolated in the learning rate.

    The mistake is the share of Stratonovich's law, whose density in the weight w is w^{L-1} times that of Ito.
    """
    readings, rate, count = [], 0.01, 4
    with jax.enable_x64(True):
        for depth, target, noise in SETTINGS:
            x = np.ones(count)
            model = chain(depth, x, target * x)

            def at(rate, depth=depth, target=target, noise=noise, model=model):
                dynamics = SGD(rate, sampling=LabelNoise(np.sqrt(count * noise / rate)))
                return final_products(dynamics, model, target, seed, 800, 100, (30, 100))

            edges = np.array([_quantile(depth, target, noise, level) for level in LEVELS])
            wrong = np.diff([_stratonovich(depth, target, noise, edge) for edge in edges])
            fine, coarse = (_shares(at(part), edges) for part in (rate / 2, rate))
            for i, mistake in enumerate(wrong):
                name = f"share in quarter {i + 1}, depth {depth}, s* {target:g}, c {noise:g}"
                shares = 2 * fine[:, i] - coarse[:, i]
                told = abs(mistake - 0.25) > 0.05  # else the two laws have the same share there
                readings.append(mean(name, 0.25, shares, 0.25 * AFTER_RICHARDSON, mistake if told else np.nan))
    return readings


def _shares(products: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of each bin along each chain."""
    return np.stack([((products >= a) & (products < b)).mean(axis=1) for a, b in pairwise(edges)], 1)


def _quantile(depth: int, target: float, noise: float, level: float) -> float:
    """Of the singular value in Ito's law."""
    if level in (0, 1):
        return -np.inf if level == 0 else np.inf
    if depth == 2:
        return float(square_law(target, np.sqrt(noise)).ppf(level))
    return DeepModeLaw(depth, target, noise).quantile(level) ** depth


def _stratonovich(depth: int, target: float, noise: float, edge: float) -> float:
    """Share below an edge in Stratonovich's law; of two layers that is Gamma(s*/c, c)."""
    if edge <= 0:
        return 0.0
    if depth == 2 or edge == np.inf:
        return float(scipy.stats.gamma(target / noise, scale=noise).cdf(edge))
    law = DeepModeLaw(depth, target, noise)
    below = quad(lambda w: w ** (depth - 1) * law.density(w), 1e-3, edge ** (1 / depth), epsrel=1e-9)[0]
    return float(below / law.moment(depth - 1))
