"""Evidence, and its mean loss, in closed form or up to one integral: linear regression, and two-layer networks with one output.

The mean of the loss under the tempered posterior is E[n L] = -d log Z / d beta, taken inside the integral.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import gammaln

from ..errors import InputError


def regression_log_evidence(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n ..."], noise: float, prior_scale: float, beta: float = 1.0
) -> float:
    r"""Log of the integral of N(w; 0, tau^2 I) prod_i N(y_i; w x_i, sigma^2)^beta, with any number of outputs.

    With the singular values s_i of X, c_i = 1 / (1 + beta tau^2 s_i^2 / sigma^2), p = U'y and the rest r = |y|^2 - |p|^2,

    .. math:: \log Z = -\tfrac{\beta}{2 \sigma^2} \Big(r + \sum_i c_i p_i^2\Big) + \tfrac12 \sum_i \log c_i
        - \tfrac{\beta n}{2} \log 2 \pi \sigma^2.
    """
    return _Regression(x, y, noise).log_evidence(prior_scale**2, beta)


def regression_total_loss(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n ..."], noise: float, prior_scale: float, beta: float = 1.0
) -> float:
    r"""E[n L] of linear regression: the residual of the posterior's mean, and what its variance adds.

    .. math:: E[n L] = \tfrac{1}{2 \sigma^2} \Big(r + \sum_i c_i^2 p_i^2 + c_i \tau^2 s_i^2\Big)
        + \tfrac n2 \log 2 \pi \sigma^2
    """
    return _Regression(x, y, noise).total_loss(prior_scale**2, beta)


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
        If the hidden width is below 1, or there is more than one output.
    """
    return scale_mixture(x, y, hidden, noise, prior_scale, beta)[0]


def two_layer_total_loss(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int,
    noise: float,
    prior_scale: float,
    beta: float = 1.0,
) -> float:
    """E[n L] of y = v' W x + noise: that of regression, averaged over the same mixture with the posterior's weights.

    Raises
    ------
    InputError
        If the hidden width is below 1, or there is more than one output.
    """
    regression = _Regression(x, y, noise)
    return scale_mixture(x, y, hidden, noise, prior_scale, beta, lambda v: regression.total_loss(v, beta))[1]


def scale_mixture(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int,
    noise: float,
    prior_scale: float,
    beta: float,
    function: Callable[[float], float] = lambda variance: 1.0,
) -> tuple[float, float]:
    """Log Z of a two-layer network, and the posterior mean of a function of the variance tau^4 s of its effective weights."""
    if hidden < 1:
        raise InputError(f"hidden is {hidden}: it must be at least 1")
    regression = _Regression(x, y, noise)
    if regression.projected.shape[1] != 1:
        raise InputError(f"{regression.projected.shape[1]} outputs: the scale mixture has one")

    constant = hidden / 2 * np.log(2) + gammaln(hidden / 2)

    def log_integrand(log_s):
        s = np.exp(log_s)
        return hidden / 2 * log_s - s / 2 - constant + regression.log_evidence(prior_scale**4 * s, beta)

    grid = np.linspace(-40, 10, 2001)
    values = np.array([log_integrand(u) for u in grid])
    top, peak = values.max(), grid[values.argmax()]
    inside = grid[values > top - 60]
    pieces = [(low, high) for low, high in pairwise([inside[0], peak, inside[-1]]) if high > low]

    def integral(function: Callable[[float], float]) -> float:
        def integrand(u):
            return np.exp(log_integrand(u) - top) * function(prior_scale**4 * np.exp(u))

        return sum(quad(integrand, low, high, epsabs=0, epsrel=1e-10, limit=400)[0] for low, high in pieces)

    mass = integral(lambda variance: 1.0)
    return float(top + np.log(mass)), integral(function) / mass


class _Regression:
    """Singular values of the inputs and what the outputs are along them, shared by all prior variances."""

    def __init__(self, x, y, noise: float):
        y = np.asarray(y, float).reshape(len(y), -1)
        left, singular, _ = np.linalg.svd(np.asarray(x, float), full_matrices=False)
        self.squares, self.projected = singular[:, None] ** 2, left.T @ y
        self.rest = float(np.sum((y - left @ self.projected) ** 2))
        self.noise, self.constant = noise, y.size / 2 * np.log(2 * np.pi * noise**2)

    def log_evidence(self, variance: float, beta: float) -> float:
        shrinkage = self._shrinkage(variance, beta)
        fit = self.rest + np.sum(shrinkage * self.projected**2)
        num_outputs = self.projected.shape[1]
        log_det = num_outputs / 2 * np.sum(np.log(shrinkage))
        return float(-beta * (fit / (2 * self.noise**2) + self.constant) + log_det)

    def total_loss(self, variance: float, beta: float) -> float:
        shrinkage = self._shrinkage(variance, beta)
        fit = self.rest + np.sum((shrinkage * self.projected) ** 2 + shrinkage * variance * self.squares)
        return float(fit / (2 * self.noise**2) + self.constant)

    def _shrinkage(self, variance: float, beta: float) -> np.ndarray:
        return 1 / (1 + beta * variance * self.squares / self.noise**2)
