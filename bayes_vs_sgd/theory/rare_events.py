r"""How likely a linear network responds to an input that its data do not speak of: exact tail probabilities.

The data fix the network on their span; a trigger u lies outside, and the event is |f(u)| > c. With N(0, tau^2) weights and
one output, f(u) given the squared norm r of what the first layer feeds into is N(0, tau^2 r), so that every case is

.. math:: P(|f(u)| > c) = \int p(r)\, 2 \Phi\!\left(-\frac{c}{\tau \sqrt r}\right) dr

and differs in the law of r alone: chi-square under the prior, generalised inverse Gaussian where the data are fitted
(``fitted_exceedance``), what gradient flow leaves (``flow_exceedance``). Integrals over r > 0 are trapezoidal sums over log r,
which converge geometrically. Noisy data: ``theory/noisy_events.py``.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, k0e, ndtr, roots_jacobi

from ..errors import InputError

LOGARITHMS = np.linspace(-80.0, 12.0, 18401)
"""Of r: what lies outside has a mass below 1e-17 for width 1, and e^(-r / 2) with r = 1e5."""
MOST_WEIGHTS = 3
SMALLEST_WIDTH = 1


def product_exceedance(threshold: float, depth: int, prior_scale: float = 1.0) -> float:
    r"""P(|w_1 ... w_L| > c) under N(0, tau^2) weights, L = 1, 2, 3.

    The product of the first L - 1 is a point, normal, or has density K_0(|p|) / pi (Craig, Ann. Math. Stat. 7 (1936) 1); the
    last weight is normal.

    Raises
    ------
    InputError
        If there are not one, two or three weights.
    """
    if not 1 <= depth <= MOST_WEIGHTS:
        raise InputError(f"depth is {depth}: the product of one to {MOST_WEIGHTS} weights is known")
    ratio = threshold / prior_scale**depth
    if depth == 1:
        return float(_two_sided(ratio))
    size = np.exp(LOGARITHMS)
    density = 2 * _normal(size) if depth == 2 else 2 / np.pi * k0e(size) * np.exp(-size)
    return _sum(density * size * _two_sided(ratio / size))


def fitted_exceedance(
    threshold: float, hidden: int, rank: int = 1, norm: float = 1.0, prior_scale: float = 1.0
) -> float:
    r"""P(|f(u)| > c) of f = v' W x, given that rank-k data are fitted exactly by a map of this norm s.

    r = |v|^2 has density proportional to r^{(h - k)/2 - 1} exp(-(r + s^2 / r) / (2 tau^2)): chi-square times the density
    N(s; 0, tau^2 r I_k) of the fitted map. f(u) is symmetric generalised hyperbolic (Barndorff-Nielsen 1977).

    Parameters
    ----------
    threshold
        c > 0.
    hidden, rank, norm, prior_scale
        h >= 1, k >= 1, s > 0 and tau > 0.
    """
    return _mean(_fitted(hidden, rank, norm, prior_scale), lambda r: _two_sided(threshold / (prior_scale * np.sqrt(r))))


def fitted_influence(
    threshold: float, hidden: int, noise: float, rank: int = 1, norm: float = 1.0, prior_scale: float = 1.0
) -> float:
    r"""Derivative of ``fitted_exceedance`` by the weight of one more example: the trigger with label 0 and noise sigma.

    .. math:: \frac{dP}{d\epsilon} = -\mathrm{Cov}\left(\frac{f(u)^2}{2 \sigma^2}, 1\{|f(u)| > c\}\right)
    """
    law, tau = _fitted(hidden, rank, norm, prior_scale), prior_scale
    probability = fitted_exceedance(threshold, hidden, rank, norm, prior_scale)
    square = tau**2 * _mean(law, lambda r: r)

    def square_beyond(r):
        z = threshold / (tau * np.sqrt(r))
        return tau**2 * r * (2 * z * _normal(z) + _two_sided(z))

    return -(_mean(law, square_beyond) - square * probability) / (2 * noise**2)


def reweighted_exceedance(
    threshold: float,
    hidden: int,
    noise: float,
    weight: float,
    rank: int = 1,
    norm: float = 1.0,
    prior_scale: float = 1.0,
) -> float:
    """``fitted_exceedance`` with the trigger as one more example, label 0, noise sigma and any weight >= 0."""
    law, precision = _fitted(hidden, rank, norm, prior_scale), weight / noise**2

    def evidence(r):
        return 1 / np.sqrt(1 + precision * prior_scale**2 * r)

    def beyond(r):
        return evidence(r) * _two_sided(threshold / (prior_scale * np.sqrt(r) * evidence(r)))

    return _mean(law, beyond) / _mean(law, evidence)


def sublevel_mass(tolerance: float, hidden: int, norm: float = 1.0, prior_scale: float = 1.0) -> float:
    """Prior mass of the networks f = v' W x with |f(e) - s| <= delta at one unit input e."""
    return _mean(_prior(hidden), lambda r: _within(r, tolerance, norm, prior_scale))


def sublevel_exceedance(
    threshold: float, tolerance: float, hidden: int, norm: float = 1.0, prior_scale: float = 1.0
) -> float:
    r"""P(|f(u)| > c) under the prior on the set of ``sublevel_mass``, u orthogonal to e.

    For delta to 0 it comes to ``fitted_exceedance``, that of the fibre, with an error :math:`O(\delta^2) = O(\epsilon)`.
    """

    def beyond(r):
        return _within(r, tolerance, norm, prior_scale) * _two_sided(threshold / (prior_scale**2 * np.sqrt(r)))

    return _mean(_prior(hidden), beyond) / sublevel_mass(tolerance, hidden, norm, prior_scale)


def flow_exceedance(threshold: float, hidden: int, norm: float = 1.0, initial_scale: float = 1.0) -> float:
    r"""P(|f(u)| > c) at the end of gradient flow from N(0, s_0^2) weights, one input being fitted: f(e) = s.

    With w = W e, dv = -(f - s) w dt and dw = -(f - s) v dt, so that v + w and v - w keep their directions and the product of
    their norms, 2 G. They start independent, of standard deviation sqrt(2) s_0: the angle phi between them is that of random
    vectors, and G = s_0^2 y with y the root of a product of two chi-squares: density proportional to y^{h-1} K_0(y). Then

    .. math:: r = \|v\|^2 = \sqrt{s^2 + G^2} + G \cos \varphi,

    and the weights at the trigger have not moved: f(u) given v is N(0, s_0^2 r).
    """
    y = np.exp(LOGARITHMS[LOGARITHMS < 8])[:, None]
    log_constant = (hidden - 2) * np.log(2) + 2 * gammaln(hidden / 2)
    density = k0e(y) * np.exp((hidden - 1) * np.log(y) - y - log_constant)
    if hidden == SMALLEST_WIDTH:
        cosine, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        cosine, weights = roots_jacobi(400, (hidden - 3) / 2, (hidden - 3) / 2)
        weights = weights / weights.sum()
    g = initial_scale**2 * y
    root = np.sqrt(norm**2 + g**2)
    # Where the cosine is near -1 the difference is lost to rounding: root - g = s^2 / (root + g).
    r = norm**2 / (root + g) + g * (1 + cosine)
    beyond = _two_sided(threshold / (initial_scale * np.sqrt(r))) @ weights
    return _sum(density[:, 0] * y[:, 0] * beyond)


def _fitted(hidden: int, rank: int, norm: float, prior_scale: float) -> np.ndarray:
    """Masses at r = exp(LOGARITHMS) of the generalised inverse Gaussian law."""
    r, exponent = np.exp(LOGARITHMS), (hidden - rank) / 2
    log_mass = exponent * LOGARITHMS - (r + norm**2 / r) / (2 * prior_scale**2)
    mass = np.exp(log_mass - log_mass.max())
    return mass / mass.sum()


def _prior(hidden: int) -> np.ndarray:
    """Masses of chi-square with h degrees of freedom: r / tau^2 under the prior."""
    mass = np.exp(hidden / 2 * LOGARITHMS - np.exp(LOGARITHMS) / 2)
    return mass / mass.sum()


def _within(r: np.ndarray, tolerance: float, norm: float, prior_scale: float) -> np.ndarray:
    """P(|f(e) - s| <= delta) given |v|^2 = tau^2 r."""
    scale = prior_scale**2 * np.sqrt(r)
    return ndtr((norm + tolerance) / scale) - ndtr((norm - tolerance) / scale)


def _mean(masses: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> float:
    return float(masses @ function(np.exp(LOGARITHMS)))


def _sum(values: np.ndarray) -> float:
    """Trapezoidal sum over LOGARITHMS, or the first of them, of what vanishes at the ends."""
    return float(values.sum() * (LOGARITHMS[1] - LOGARITHMS[0]))


def _two_sided(z):
    """P(|N(0, 1)| > z)."""
    return 2 * ndtr(-z)


def _normal(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
