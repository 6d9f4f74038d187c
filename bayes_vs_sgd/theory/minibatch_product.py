r"""The stationary law of two weights under minibatch noise, whose size depends on where they are: exact, with a heavy tail.

In a network y = u v x with the loss 1/2 (u v x - y)^2 of an example, gradient noise drives u^2 - v^2 to 0, since both weights
see the same. On u = v the product s = u v > 0 follows, in the time learning rate x steps and in Ito's sense,

.. math:: ds = 2 s (b - a s + \tfrac{1}{2} \kappa q(s))\, dt + 2 s \sqrt{\kappa q(s)}\, dB, \qquad
    q(s) = \mathrm{Var}(x^2 s - x y),

with a = E x^2, b = E x y and kappa = learning rate / batch size. With no flux at 0 its law is

.. math:: p(s) \propto s^{-3/2} q(s)^{-1} \exp\Big(-\frac{1}{\kappa} \int \frac{a s - b}{s\, q(s)} ds\Big),

which for a constant q is the Gamma law of label noise (``collapse.square_law``). Where q grows as s^2 the tail is s^{-7/2} at any
learning rate. All mass goes to 0 where kappa q(0) >= 2 b. After Ziyin, Li and Ueda (arXiv 2308.06671), derived again.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.integrate import cumulative_simpson
from scipy.interpolate import PchipInterpolator

from ..errors import InputError

POINTS = 20_001
"""Of log s, at which the law is tabulated."""
DEPTH = 60.0
"""The table ends where p(s) s is exp(-60) of its largest value."""


@dataclass(frozen=True)
class MinibatchProductLaw:
    """Law of s = u v at stationarity.

    Parameters
    ----------
    curvature, force
        a and b > 0.
    noise
        Coefficients (q2, q1, q0) of q(s) = q2 s^2 - 2 q1 s + q0, positive for all s.
    temperature
        kappa.

    Raises
    ------
    InputError
        If q is not positive, or all mass is at 0.
    """

    curvature: float
    force: float
    noise: tuple[float, float, float]
    temperature: float

    def __post_init__(self):
        q2, q1, q0 = self.noise
        if not (q2 > 0 and q2 * q0 > q1**2 and min(self.curvature, self.force, self.temperature) > 0):
            raise InputError(f"noise {self.noise}: its variance must be positive for every product, and all else > 0")
        if self.temperature * q0 >= 2 * self.force:
            raise InputError(
                f"learning rate / batch size {self.temperature:g}: from {2 * self.force / q0:.3g} on all mass is at 0"
            )

    @classmethod
    def of_data(
        cls, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], learning_rate: float, batch_size: int
    ) -> "MinibatchProductLaw":
        """Under SGD on these examples, drawn with replacement."""
        (q2, q1), (_, q0) = np.cov(x**2, x * y, bias=True)
        noise = (float(q2), float(q1), float(q0))
        return cls(float(np.mean(x**2)), float(np.mean(x * y)), noise, learning_rate / batch_size)

    def log_density(self, s: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Log p(s), up to a constant: the integral by partial fractions."""
        q2, q1, q0 = self.noise
        root = np.sqrt(q2 * q0 - q1**2)
        q = q2 * s**2 - 2 * q1 * s + q0
        angle = np.arctan((q2 * s - q1) / root) / root
        drift = self.curvature * angle - self.force / q0 * (np.log(s) - np.log(q) / 2 + q1 * angle)
        return -1.5 * np.log(s) - np.log(q) - drift / self.temperature

    def cdf(self, s: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """P(product <= s)."""
        grid, share = self._table
        with np.errstate(divide="ignore"):
            return PchipInterpolator(grid, share)(np.clip(np.log(np.maximum(s, 0)), grid[0], grid[-1]))

    def quantile(self, probability: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """The s that a share p of the mass is below."""
        grid, share = self._table
        rising = np.append(True, np.diff(share) > 0)
        return np.exp(np.interp(probability, share[rising], grid[rising]))

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Grid of log s, and the share of the mass below each point of it."""
        # Below the peak p(s) s falls as a power of s, above it as s^(-5/2).
        power = self.force / (self.temperature * self.noise[2]) - 0.5
        peak = np.log(self.force / self.curvature)
        grid = np.linspace(peak - DEPTH / power - 20, peak + DEPTH / 2.5 + 20, POINTS)
        weight = self.log_density(np.exp(grid)) + grid
        mass = cumulative_simpson(np.exp(weight - weight.max()), x=grid, initial=0)
        return grid, np.maximum.accumulate(mass) / mass[-1]
