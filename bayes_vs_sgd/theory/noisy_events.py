"""How likely a linear network fitted to noisy data responds to an input: exact for one layer, one integral for two."""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from .evidence import scale_mixture


def regression_exceedance(
    threshold: float,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    noise: float,
    prior_scale: float,
    direction: Float[np.ndarray, " d"],
    beta: float = 1.0,
) -> float:
    r"""P(|f(u)| > c) under the tempered posterior of y = w x + noise with N(0, tau^2) weights.

    f(u) is normal with mean u'm and variance u'Vu, where V = (I / tau^2 + beta X'X / sigma^2)^{-1} and m = beta V X'y / sigma^2.
    """
    return _Response(x, y, noise, direction, beta).beyond(threshold, prior_scale**2)


def network_exceedance(
    threshold: float,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    hidden: int,
    noise: float,
    prior_scale: float,
    direction: Float[np.ndarray, " d"],
    beta: float = 1.0,
) -> float:
    r"""P(|f(u)| > c) under the tempered posterior of y = v' W x + noise: that of regression, averaged over the scale of W'v.

    Given r = |v|^2 the effective weights are N(0, tau^2 r I), so that the law of r is the mixture of ``theory/evidence.py``.

    Raises
    ------
    InputError
        If the hidden width is below 1, or there is more than one output.
    """
    response = _Response(x, y, noise, direction, beta)
    return scale_mixture(x, y, hidden, noise, prior_scale, beta, lambda v: response.beyond(threshold, v))[1]


class _Response:
    """Law of u'w given the data, for any variance of the weights, in the singular basis of the inputs."""

    def __init__(self, x, y, noise: float, direction, beta: float):
        left, singular, right = np.linalg.svd(np.asarray(x, float), full_matrices=False)
        u = np.asarray(direction, float)
        self.along = right @ u
        self.rest = float(np.sum((u - right.T @ self.along) ** 2))  # off the span only the prior speaks
        self.precision = beta * (singular / noise) ** 2
        self.pull = beta * singular * (left.T @ np.asarray(y, float).ravel()) / noise**2

    def beyond(self, threshold: float, variance: float) -> float:
        """P(|u'w| > c) if the weights have this prior variance."""
        spread = 1 / (1 / variance + self.precision)
        mean = self.along @ (spread * self.pull)
        scale = np.sqrt(self.along @ (spread * self.along) + variance * self.rest)
        return float(ndtr((mean - threshold) / scale) + ndtr((-mean - threshold) / scale))
