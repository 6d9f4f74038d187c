r"""What one temperature ladder tells: learning coefficient, multiplicity, WBIC, and log Z by thermodynamic integration.

With N = n beta and U(N) = N E_N[L - L*], the free energy F(N) has dF/dlog N = U(N), so that

.. math:: U(N) = \lambda - \frac{m - 1}{\log N} + o(1/\log N)

(Watanabe 2009, Theorem 6.7): lambda and m are the intercept and the slope of U against 1/log N. The remainder is slow, so
the fit is made on the upper half of the ladder, in log N, and on its upper quarter, and their difference is an error.
"""

import math
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from .tempered import Ladder

LEAST_PRECISION = 10.0
"""Smallest N = n beta that the asymptotic form is asked about."""
FAR = 1e3
"""Shift of t where nothing falls: its logarithm is linear over the ladder."""
NUM_POINTS = 17
"""Points of the ladder that a line is fitted to."""


class EnergyCurve:
    r"""Mean energy along a ladder, :math:`f(t) = E_t[E]`, between its points, by its values and slopes :math:`f' = -Var_t[E]`.

    From the base law on it falls about as :math:`E_* + \lambda / (t + c)`, which no polynomial in t does: what is interpolated,
    by cubic Hermite polynomials, is :math:`g = (f - E_*)(t + c)` in :math:`u = \log(1 + t/c)`, of slope
    :math:`dg/du = (t + c)(f - E_* - (t + c) Var_t[E])`. The ends give E_* = f(1) - Var_1[E] and c = (f(0) - E_*) / Var_0[E], so
    that the slope is 0 at t = 0. Where the energy does not fall, or by less than its errors, c is large, and u linear.

    Parameters
    ----------
    points, energies, variances
        t from 0 to 1, and mean and variance of E there; where one is not finite, nor is what is asked.
    """

    def __init__(self, points: np.ndarray, energies: np.ndarray, variances: np.ndarray):
        points, first = np.unique(points, return_index=True)
        energies, variances = energies[first], variances[first]
        self.points, self.least = points, energies[-1] - variances[-1]
        fall = energies[0] - self.least
        self.shift = min(fall / variances[0], FAR) if fall > 0 and variances[0] > 0 else FAR
        beyond = points + self.shift
        values = (energies - self.least) * beyond
        slopes = values - beyond**2 * variances
        known = len(points) > 1 and np.isfinite([values, slopes]).all()
        self.spline = CubicHermiteSpline(self.log(points), values, slopes) if known else None

    def log(self, t: Any) -> Any:
        """Return u."""
        return np.log1p(t / self.shift)

    def __call__(self, t: float) -> float:
        """Interpolate the mean energy at t."""
        if self.spline is None:
            return math.nan
        return self.least + float(self.spline(self.log(t))) / (t + self.shift)

    def integral(self) -> float:
        """Integral of the mean energy over all t."""
        if self.spline is None:
            return math.nan
        above = self.spline.integrate(*self.log(self.points[[0, -1]]))
        return float(above + self.least * (self.points[-1] - self.points[0]))


def energies(run: Ladder, every: int = 1) -> EnergyCurve:
    """Mean energy of a replicate; of the stages, only every so many are used, counted from the last."""
    used = np.unique([0, *range(len(run.tempering) - 1, -1, -every)])
    return EnergyCurve(run.tempering[used], -run.mean[used], run.variance[used])


def thermodynamic_integral(run: Ladder, every: int = 1) -> float:
    """Log Z by the integral of E_t[-E] over t, from means and variances of the energy alone (after Friel et al. 2014)."""
    return -energies(run, every).integral()


def learning_coefficient_and_multiplicity(
    run: Ladder, beta: float, num_examples: int, best: float, most: float
) -> tuple[float, float, float, float] | None:
    """Intercept and 1 minus the slope of U against 1/log N, by least squares, and by how much the upper quarter differs.

    Parameters
    ----------
    run
        Ladder of a target without localisation.
    beta, num_examples
        Inverse temperature at t = 1, and n.
    best
        n L(w*).
    most
        Largest N used. Above n/log n the noise of the labels is fitted, and U is about that and not about lambda.

    Returns
    -------
    tuple or None
        lambda, m, and the differences of both between the two fits; None where N reaches less than e times the least.
    """
    top = min(most, beta * num_examples)
    if top < np.e * LEAST_PRECISION:
        return None
    fits, curve = [], energies(run)
    for share in (0.5, 0.25):
        scale = np.geomspace(LEAST_PRECISION**share * top ** (1 - share), top, NUM_POINTS)
        losses = [curve(x / (beta * num_examples)) / beta for x in scale]
        excess = scale / num_examples * (np.array(losses) - best)
        slope, intercept = np.polyfit(1 / np.log(scale), excess, 1)
        fits.append((intercept, 1 - slope))
    (value, multiplicity), (value_2, multiplicity_2) = fits
    return float(value), float(multiplicity), float(value - value_2), float(multiplicity - multiplicity_2)
