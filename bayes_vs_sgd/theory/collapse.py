r"""Stochastic collapse: noise that is proportional to a weight drives it to 0 where it exceeds the drift, or thins its law.

A balanced mode of a deep linear network under label noise is d w = w^{L-1} (s* - w^L) dt + sqrt(c) w^{L-1} dB (Ito) with
singular value s = w^L. Two layers collapse where s* < c/2 and are a quartic well otherwise; three or more never collapse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import root_scalar

from ..errors import InputError


def growth_rate(drift: float, noise: float) -> float:
    r"""Lyapunov exponent of d theta = mu theta dt + zeta theta dB: mu - zeta^2 / 2. Below 0, theta goes to 0 surely."""
    return float(drift) - float(noise) ** 2 / 2


def critical_noise(drift: float) -> float:
    """Noise zeta above which the quartic well collapses: sqrt(2 mu), 0 without a well."""
    return float(np.sqrt(2 * max(float(drift), 0.0)))


def square_law(drift: float, noise: float) -> Any:
    r"""Stationary law of theta^2 in the quartic well d theta = (mu theta - theta^3) dt + zeta theta dB: a Gamma (SciPy's).

    The density of theta is proportional to \|theta\|^{2 mu / zeta^2 - 2} exp(-theta^2 / zeta^2), so theta^2 has shape
    mu / zeta^2 - 1/2 and scale zeta^2, mean mu - zeta^2 / 2. The same law is that of the singular value s = u v of two weights
    under label noise, ds = 2 s (s* + c/2 - s) dt + 2 sqrt(c) s dB, with mu = s* and zeta^2 = c: shape s*/c - 1/2, scale c; the
    mean s* - c/2 is soft thresholding. After Chen, Kunin, Yamamura and Ganguli (NeurIPS 2023).

    Parameters
    ----------
    drift, noise
        mu and zeta > 0.

    Raises
    ------
    InputError
        If it collapses, zeta^2 >= 2 mu: the law is a point mass at 0.
    """
    mu, zeta = float(drift), float(noise)
    if not 0 < zeta < critical_noise(mu):
        raise InputError(
            f"drift {mu:g} and noise {zeta:g}: the law is no Gamma (at noise^2 >= 2 drift all is at 0); give a noise "
            f"between 0 and {critical_noise(mu):g}"
        )
    return scipy.stats.gamma(mu / zeta**2 - 0.5, scale=zeta**2)


class NeuronExponents(NamedTuple):
    """Growth rates of log abs(w_1 + w_2) and of log abs(w_1 - w_2) near 0."""

    sum: float
    difference: float


def neuron_exponents(
    inputs: Float[np.ndarray, " m"],
    labels: Float[np.ndarray, " m"],
    learning_rate: float,
    label_noise: float,
    batch_size: int = 1,
    slope: float = 1.0,
) -> NeuronExponents:
    r"""Lyapunov exponents at 0 of f(x) = w_2 sigma(w_1 x) under label noise, loss 1/(2m) sum (f - y)^2, time eta x steps.

    .. math:: \pm \frac{\sigma'(0)}{m} \sum_i x_i y_i - \frac{\eta \zeta^2 \sigma'(0)^2}{2 m B} \sum_i x_i^2.

    Both weights see the same noise, so that w_1 + w_2 and w_1 - w_2 are geometric Brownian motions. Full-batch steps on labels
    perturbed afresh have B = m. The noise of the choice of examples is left out: it adds the mean of x^2 y^2 to zeta^2 times
    that of x^2, less the square of the mean of x y. After Chen, Kunin, Yamamura and Ganguli (NeurIPS 2023).

    Parameters
    ----------
    inputs, labels
        x and y.
    learning_rate, label_noise
        eta, and the standard deviation zeta of the label noise.
    batch_size, slope
        B and sigma'(0): 1 for tanh.
    """
    x, y = np.asarray(inputs, float), np.asarray(labels, float)
    drift = slope * np.mean(x * y)
    decay = learning_rate * label_noise**2 * slope**2 * np.mean(x**2) / (2 * batch_size)
    return NeuronExponents(float(drift - decay), float(-drift - decay))


@dataclass(frozen=True)
class DeepModeLaw:
    r"""Stationary law of the weight w of a balanced mode of three or more layers under label noise.

    .. math:: p(w) \propto w^{-(2L-2)} \exp\Big(-\frac2c \Big[\frac{s^* w^{2-L}}{L-2} + \frac{w^2}{2}\Big]\Big), \quad w > 0.

    It has no mass at 0 for any s* > 0, however strong the noise. From the equation at the top of this file with no flux at 0;
    normalised by SciPy's quadrature in log w, of which the log density is concave.

    Parameters
    ----------
    depth
        L >= 3.
    target, noise
        s* > 0 and c > 0.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """

    depth: int
    target: float
    noise: float

    def __post_init__(self):
        if not (self.depth >= 3 and self.target > 0 and self.noise > 0):
            raise InputError(
                f"depth {self.depth}, target {self.target:g}, noise {self.noise:g}: give a depth of 3 or more, the others > 0"
            )

    def density(self, weight: Float[np.ndarray, " k"] | float) -> Float[np.ndarray, " k"] | float:
        """P(w)."""
        u = np.log(weight)
        return np.exp(self._log(u) - u) / self._mass

    def moment(self, power: float = 1) -> float:
        """E w^power; the singular value is the moment of power L."""
        return self._integral(power, *self._ends) / self._mass

    def quantile(self, probability: float) -> float:
        """Return the w that p of the mass is below."""
        low, high = self._ends
        return float(np.exp(_root(lambda u: self._integral(0, low, u) / self._mass - probability, low, high)))

    @cached_property
    def _peak(self) -> float:
        """Where the density of log w is largest: there its slope, which falls, is 0."""
        far = 1.0
        while self._slope(far) > 0 or self._slope(-far) < 0:
            far *= 2
        return _root(self._slope, -far, far)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """Beyond these log w less than exp(-80) of the peak is left."""

        def end(sign):
            far = 1.0
            while self._log(self._peak + sign * far) > -80:
                far *= 2
            return _root(lambda u: self._log(u) + 80, self._peak, self._peak + sign * far)

        return end(-1), end(1)

    @cached_property
    def _mass(self) -> float:
        return self._integral(0, *self._ends)

    def _exponent(self, u):
        depth, scale = self.depth, 2 / self.noise
        bracket = self.target * np.exp((2 - depth) * u) / (depth - 2) + np.exp(2 * u) / 2
        return -(2 * depth - 3) * u - scale * bracket

    def _log(self, u):
        """Log density of log w, 0 at its peak."""
        return self._exponent(u) - self._exponent(self._peak)

    def _slope(self, u: float) -> float:
        depth, scale = self.depth, 2 / self.noise
        return -(2 * depth - 3) + scale * (self.target * np.exp((2 - depth) * u) - np.exp(2 * u))

    def _integral(self, power: float, low: float, high: float) -> float:
        inside = [self._peak] if low < self._peak < high else None
        found = quad(
            lambda u: np.exp(self._log(u) + power * u), low, high, points=inside, epsabs=0, epsrel=1e-11, limit=400
        )
        return found[0]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function changes its sign, by Brent's method."""
    return float(root_scalar(function, bracket=(low, high), xtol=1e-13).root)
