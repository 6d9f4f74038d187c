r"""What one temperature ladder tells: learning coefficient, multiplicity, WBIC, and log Z by thermodynamic integration.

With N = n beta and U(N) = N E_N[L - L*], the free energy F(N) has dF/dlog N = U(N), so that

.. math:: U(N) = \lambda - \frac{m - 1}{\log N} + o(1/\log N)

(Watanabe 2009, Theorem 6.7): lambda and m are the intercept and the slope of U against 1/log N. The remainder is slow, so
the fit is made on the upper half of the ladder, in log N, and on its upper quarter, and their difference is an error.
"""

import numpy as np

from .tempered import Ladder

LEAST_PRECISION = 10.0
"""Smallest N = n beta that the asymptotic form is asked about."""
NUM_POINTS = 17
"""Points of the ladder that a line is fitted to."""


def thermodynamic_integral(run: Ladder, every: int = 1) -> float:
    """Integral of E_t[-E] over t by the trapezoid rule with derivatives, Var_t, at its ends (Friel et al. 2014).

    Of the stages, only every so many are used, counted from the last.
    """
    used = np.unique([0, *range(len(run.tempering) - 1, -1, -every)])
    return trapezoid(run.tempering[used], run.mean[used], run.variance[used])


def trapezoid(points: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> float:
    """Integral by the trapezoid rule with derivatives at the ends of each piece; its error is of fourth order."""
    widths = np.diff(points)
    return float(np.sum(widths * (values[1:] + values[:-1]) / 2 - widths**2 * np.diff(slopes) / 12))


def mean_loss_at(run: Ladder, t: float, beta: float) -> float:
    """E_t[n L] by cubic Hermite interpolation of the ladder: d/dt E_t[-n beta L] is the variance."""
    index = int(np.clip(np.searchsorted(run.tempering, t), 1, len(run.tempering) - 1))
    low, high = run.tempering[index - 1 : index + 1]
    width = high - low
    s = (t - low) / width
    values = run.mean[index - 1 : index + 1] @ [(1 + 2 * s) * (1 - s) ** 2, s**2 * (3 - 2 * s)]
    slopes = width * run.variance[index - 1 : index + 1] @ [s * (1 - s) ** 2, s**2 * (s - 1)]
    return -float(values + slopes) / beta


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
    fits = []
    for share in (0.5, 0.25):
        scale = np.geomspace(LEAST_PRECISION**share * top ** (1 - share), top, NUM_POINTS)
        losses = [mean_loss_at(run, x / (beta * num_examples), beta) for x in scale]
        excess = scale / num_examples * (np.array(losses) - best)
        slope, intercept = np.polyfit(1 / np.log(scale), excess, 1)
        fits.append((intercept, 1 - slope))
    (value, multiplicity), (value_2, multiplicity_2) = fits
    return float(value), float(multiplicity), float(value - value_2), float(multiplicity - multiplicity_2)
