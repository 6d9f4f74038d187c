r"""Products of powers of weights, f(w) = w_1^{k_1} ... w_d^{k_d}: the local form of every singular model, solved exactly.

K = f^2 / 2 vanishes on the coordinate planes, crossing normally. By the zeta function of K (Watanabe, Algebraic Geometry and
Statistical Learning Theory, 2009, section 6) lambda is the smallest 1 / (2 k_i), and m the number of weights that have it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from ..errors import InputError
from .linear_networks import LearningCoefficient

STEP = 0.02
"""Of log f; the density of log |w| is analytic, so that sums over it err by exp(-pi^2 / (2 STEP)) or less."""
NEGLIGIBLE = 40.0
"""Mass of exp(-NEGLIGIBLE) of the whole is left out."""


class CrossingMoments(NamedTuple):
    """Log Z and the energy E[(b/2)(f - s)^2]."""

    log_evidence: float
    energy: float


def crossing_learning_coefficient(powers: Sequence[int]) -> LearningCoefficient:
    """Return lambda = min_i 1 / (2 k_i) and m, the number of weights with the largest power, at f = 0.

    Raises
    ------
    InputError
        If a power is not a whole number >= 1.
    """
    powers = _checked(powers)
    return LearningCoefficient(1 / (2 * max(powers)), powers.count(max(powers)))


def crossing_moments(
    powers: Sequence[int], precision: float, center: float = 0.0, prior_scale: float = 1.0
) -> CrossingMoments:
    r"""Evidence and energy under priors N(0, tau^2) and a Gaussian likelihood of f = w_1^{k_1} ... w_d^{k_d}.

    .. math:: Z = E\Big[ e^{-\frac b2 (f - s)^2} \Big], \qquad
        E_b = E\Big[\tfrac b2 (f - s)^2\, e^{-\frac b2 (f - s)^2} \Big] / Z = -b\, \partial_b \log Z.

    The density of log \|f\| is the convolution of those of k_i log \|w_i\|; the sign of f is even, or + where all powers are
    even. At s = 0 and b = N the energy is the exact value of the estimator N E_N[K]: it tends to lambda - (m - 1) / log N. For
    y = f x + noise of variance sigma^2, b = beta sum x_i^2 / sigma^2 and s = sum x_i y_i / sum x_i^2. Relative error: 1e-8.

    Parameters
    ----------
    powers
        k_i >= 1.
    precision
        b >= 0.
    center
        s.
    prior_scale
        tau > 0.

    Raises
    ------
    InputError
        If a power, the precision or the prior scale cannot be.
    """
    powers, b, s, tau = _checked(powers), float(precision), float(center), float(prior_scale)
    if not (b >= 0 and tau > 0 and np.isfinite([b, s, tau]).all()):
        raise InputError(f"precision {b:g}, center {s:g}, prior scale {tau:g}: finite, with b >= 0 and tau > 0")
    unit = tau ** sum(powers)  # f / unit has prior scale 1
    b, s = b * unit**2, s / unit
    lowest = float(np.floor(-NEGLIGIBLE * max(powers) - 0.5 * np.log1p(b * max(1.0, s**2))))
    log_density, highest = _log_density(tuple(sorted(powers)), lowest)
    signs = (1.0,) if all(k % 2 == 0 for k in powers) else (1.0, -1.0)
    # Panels of equal length, and short ones where the likelihood has its peak.
    peak = abs(s) + np.linspace(-12, 12, 49) / np.sqrt(b) if b > 0 else np.zeros(0)
    ends = np.concatenate([np.arange(lowest, highest, 5 * STEP), np.log(peak[peak > 0])])
    ends = np.unique(ends[(ends >= lowest) & (ends <= highest)])
    half, (nodes, weights) = np.diff(ends)[:, None] / 2, np.polynomial.legendre.leggauss(16)
    u = ends[:-1, None] + half * (1 + nodes)
    squares = np.array([b / 2 * (sign * np.exp(u) - s) ** 2 for sign in signs])
    log_mass = log_density(u) + np.log(half * weights) - squares
    log_z = logsumexp(log_mass)
    return CrossingMoments(float(log_z - np.log(len(signs))), float(np.sum(np.exp(log_mass - log_z) * squares)))


def crossing_total_loss(
    x: np.ndarray, y: np.ndarray, powers: Sequence[int], noise: float, prior_scale: float, beta: float
) -> float | None:
    """Expected total loss, -log p of one input and label that stand for all, under y = f x + noise; None at beta = 0."""
    if beta == 0:
        return None
    length, projection = np.asarray(x, float).item(), np.asarray(y, float).item()
    energy = crossing_moments(powers, beta * (length / noise) ** 2, projection / length, prior_scale).energy
    return float(energy / beta + np.log(2 * np.pi * noise**2) / 2)


@lru_cache(maxsize=32)
def _log_density(powers: tuple[int, ...], lowest: float) -> tuple[CubicSpline, float]:
    """Log density of log |f| under standard normal weights, as a spline from the lowest value on, and its upper end."""
    highs = [k * np.log(12.0) for k in powers]
    # Below, every other weight is at its largest.
    lows = [lowest - sum(highs) + high for high in highs]
    density, start = None, 0.0
    for k, low, high in zip(powers, lows, highs, strict=True):
        first = np.floor(low / STEP)
        v = STEP * np.arange(first, np.ceil(high / STEP) + 1) / k
        one = np.sqrt(2 / np.pi) * np.exp(v - np.exp(2 * v) / 2) / k
        density = one if density is None else np.convolve(density, one) * STEP
        start += first
    assert density is not None
    u = STEP * (start + np.arange(density.size))
    kept = (u >= lowest - 1) & (density > 1e-300)
    return CubicSpline(u[kept], np.log(density[kept])), float(u[kept][-1])


def _checked(powers: Sequence[int]) -> list[int]:
    powers = list(powers)
    if not powers or any(k != int(k) or k < 1 for k in powers):
        raise InputError(f"powers {tuple(powers)}: give one or more whole numbers >= 1")
    return [int(k) for k in powers]
