r"""The stationary law of a product of weights under minibatch noise, whose size depends on where they are: with heavy tails.

In a network y = w_1 ... w_L x with the loss 1/2 (w_1 ... w_L x - y)^2 of an example, gradient noise drives w_i^2 - w_j^2 to 0,
since all weights see the same. Where they are equal, dw = w^(L-1) (b - a s) dt + w^(L-1) sqrt(kappa q(s)) dB in the time
learning rate x steps and in Ito's sense, so that the product s = w^L > 0 follows

.. math:: ds = L s^{2 - 2/L} \Big(b - a s + \tfrac{L - 1}{2} \kappa q(s) s^{1 - 2/L}\Big) dt
    + L s^{2 - 2/L} \sqrt{\kappa q(s)}\, dB, \qquad q(s) = \mathrm{Var}(x^2 s - x y),

with a = E x^2, b = E x y and kappa = learning rate / batch size. With no flux at 0 its law is

.. math:: p(s) \propto s^{-3 (1 - 1/L)} q(s)^{-1}
    \exp\Big(-\frac{2}{L \kappa} \int \frac{a s - b}{q(s)} s^{-2 + 2/L}\, ds\Big),

which for two weights and a constant q is the Gamma law of label noise (``collapse.square_law``). Where q grows as s^2 the tail is
s^(-5 + 3/L) at any learning rate. Of two weights all mass goes to 0 where kappa q(0) >= 2 b; of more it never does. After Ziyin,
Li and Ueda (arXiv 2308.06671), derived again.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from ..errors import InputError

POINTS = 20_001
"""Of log s, at which the law is tabulated."""
DEPTH = 60.0
"""The table ends where p(s) s is exp(-60) of its largest value."""


@dataclass(frozen=True)
class MinibatchProductLaw:
    """Law of s = w_1 ... w_L at stationarity.

    Parameters
    ----------
    curvature, force
        a and b > 0.
    noise
        Coefficients (q2, q1, q0) of q(s) = q2 s^2 - 2 q1 s + q0, positive for all s.
    temperature
        kappa.
    num_weights
        L >= 2.

    Raises
    ------
    InputError
        If q is not positive, or all mass is at 0.
    """

    curvature: float
    force: float
    noise: tuple[float, float, float]
    temperature: float
    num_weights: int = 2

    def __post_init__(self):
        q2, q1, q0 = self.noise
        if not (q2 > 0 and q2 * q0 > q1**2 and min(self.curvature, self.force, self.temperature) > 0):
            raise InputError(f"noise {self.noise}: its variance must be positive for every product, and all else > 0")
        if self.num_weights < 2:
            raise InputError(f"num_weights is {self.num_weights}: it must be at least 2")
        if self.num_weights == 2 and self.temperature * q0 >= 2 * self.force:
            raise InputError(
                f"learning rate / batch size {self.temperature:g}: from {2 * self.force / q0:.3g} on all mass is at 0"
            )

    @classmethod
    def of_data(
        cls,
        x: Float[np.ndarray, " n"],
        y: Float[np.ndarray, " n"],
        learning_rate: float,
        batch_size: int,
        num_weights: int = 2,
    ) -> "MinibatchProductLaw":
        """Under SGD on these examples, drawn with replacement."""
        (q2, q1), (_, q0) = np.cov(x**2, x * y, bias=True)
        noise = (float(q2), float(q1), float(q0))
        return cls(float(np.mean(x**2)), float(np.mean(x * y)), noise, learning_rate / batch_size, num_weights)

    def variance(self, s: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """q(s)."""
        q2, q1, q0 = self.noise
        return q2 * s**2 - 2 * q1 * s + q0

    def log_density(self, s: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Log p(s), up to a constant, between the ends of the table."""
        return -3 * (1 - 1 / self.num_weights) * np.log(s) - np.log(self.variance(s)) - self._work(np.log(s))

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
    def _work(self) -> CubicHermiteSpline:
        """The integral in the exponent, as a function of log s."""
        shape = 1 - 2 / self.num_weights
        peak = np.log(self.force / self.curvature)
        # Near 0 it goes as -log s of two weights, so that p(s) s is a power of s, and as s^(2/L - 1) of more.
        strength = 2 * self.force / (self.num_weights * self.temperature * self.noise[2])
        low = DEPTH / (strength - 0.5) + 20 if shape == 0 else np.log1p(2 * DEPTH * shape / strength) / shape + 1
        grid = np.linspace(peak - low, peak + DEPTH / 2.5 + 20, POINTS)
        s = np.exp(grid)
        slope = 2 * (self.curvature * s - self.force) / (self.num_weights * self.temperature * self.variance(s))
        slope *= s**-shape
        return CubicHermiteSpline(grid, cumulative_simpson(slope, x=grid, initial=0), slope)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Grid of log s, and the share of the mass below each point of it."""
        grid = self._work.x
        weight = self.log_density(np.exp(grid)) + grid
        kept = weight > weight.max() - DEPTH
        grid, weight = grid[kept], weight[kept]
        mass = cumulative_simpson(np.exp(weight - weight.max()), x=grid, initial=0)
        return grid, np.maximum.accumulate(mass) / mass[-1]
