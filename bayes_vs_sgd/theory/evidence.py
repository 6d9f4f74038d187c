"""Evidence in closed form, or up to one integral: linear regression, and two-layer networks with one output."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.stats import chi2

from ..errors import InputError


def regression_log_evidence(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], noise: float, prior_scale: float, beta: float = 1.0
) -> float:
    r"""Log of the integral of N(w; 0, tau^2 I) prod_i N(y_i; w x_i, sigma^2)^beta.

    A power of a Gaussian is a Gaussian of variance sigma^2 / beta up to a factor, so that y ~ N(0, tau^2 X X' +
    (sigma^2 / beta) I) remains, computed from the singular values of X.
    """
    left, singular, _ = np.linalg.svd(np.asarray(x, float), full_matrices=False)
    return _gaussian(left.T @ y, singular**2, float(np.sum(np.square(y))), len(y), noise, beta, prior_scale**2)


def two_layer_log_evidence(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int,
    noise: float,
    prior_scale: float,
    beta: float = 1.0,
) -> float:
    r"""Log evidence of y = v' W x + noise with N(0, tau^2) weights and a hidden width h: a scale mixture.

    Given r = |v|^2 the effective vector W'v is N(0, tau^2 r I), and r / tau^2 is chi-square with h degrees of freedom, so

    .. math:: Z = \int \chi^2_h(s)\, Z_{\mathrm{regression}}(\tau^4 s)\, ds,

    one integral (SciPy's adaptive quadrature, over log s). Hanin and Zlokapa, PNAS 120 (2023), treat all depths.

    Raises
    ------
    InputError
        If the hidden width is below 1.
    """
    if hidden < 1:
        raise InputError(f"hidden is {hidden}: it must be at least 1")
    left, singular, _ = np.linalg.svd(np.asarray(x, float), full_matrices=False)
    projected, total = left.T @ y, float(np.sum(np.square(y)))

    def log_integrand(log_s):
        s = np.exp(log_s)
        gaussian = _gaussian(projected, singular**2, total, len(y), noise, beta, prior_scale**4 * s)
        return chi2.logpdf(s, hidden) + log_s + gaussian

    grid = np.linspace(-40, 10, 2001)
    values = np.array([log_integrand(u) for u in grid])
    top, peak = values.max(), grid[values.argmax()]
    inside = grid[values > top - 60]
    pieces = pairwise([inside[0], peak, inside[-1]])
    mass = sum(
        quad(lambda u: np.exp(log_integrand(u) - top), low, high, epsabs=0, epsrel=1e-10, limit=400)[0]
        for low, high in pieces
        if high > low
    )
    return float(top + np.log(mass))


def _gaussian(projected, squares, total, count, noise, beta, variance) -> float:
    """Log N(y; 0, variance X X' + (sigma^2 / beta) I) times the factor that the power beta leaves."""
    floor = noise**2 / beta
    spread = variance * squares + floor
    rest = total - np.sum(projected**2)
    log_det = np.sum(np.log(spread)) + (count - len(squares)) * np.log(floor)
    density = -0.5 * (np.sum(projected**2 / spread) + rest / floor + log_det + count * np.log(2 * np.pi))
    factor = 0.5 * count * (1 - beta) * np.log(2 * np.pi * noise**2) - 0.5 * count * np.log(beta)
    return float(density + factor)
