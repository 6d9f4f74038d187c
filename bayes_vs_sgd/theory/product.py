"""The posterior of a product of two weights, the smallest singular model, in closed form up to one integral."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import k0

from ..errors import InputError

WIDTHS = 12.0
"""The integral stops where the likelihood alone is exp(-WIDTHS^2 / 2) of its value at the nearest end."""


class ProductMoments(NamedTuple):
    """E z, Var z and E[(b/2)(z - s)^2], the mean of n beta times the excess loss."""

    mean: float
    variance: float
    energy: float


def product_moments(precision: float, center: float, prior_precision: float = 1.0) -> ProductMoments:
    r"""Moments of z = w_1 w_2 under priors N(0, 1/gamma) and a Gaussian likelihood, by SciPy's adaptive quadrature.

    The product of the two priors has density (gamma/pi) K_0(gamma \|z\|) (Craig, Ann. Math. Stat. 7 (1936) 1), so

    .. math:: p(z) \propto K_0(\gamma |z|) \exp(-\tfrac{b}{2} (z - s)^2).

    For y = w_1 w_2 x + noise of variance sigma^2: b = beta sum x_i^2 / sigma^2 and s = sum x_i y_i / sum x_i^2.

    Parameters
    ----------
    precision
        b > 0.
    center
        s.
    prior_precision
        gamma > 0 of each weight.

    Raises
    ------
    InputError
        If a precision is not positive.
    """
    b, s, gamma = float(precision), float(center), float(prior_precision)
    if not (b > 0 and gamma > 0 and np.isfinite([b, s, gamma]).all()):
        raise InputError(f"precision {b:g} and prior precision {gamma:g}: both must be finite and > 0")
    width = 1 / np.sqrt(b)
    lowest, highest = min(0.0, s) - WIDTHS * width, max(0.0, s) + WIDTHS * width
    # Pieces end at the pole, at the likelihood's peak and around it, so that no peak falls between the nodes.
    ends = np.unique([lowest, highest, 0.0, *(s + width * np.array([-WIDTHS, -3.0, 0.0, 3.0, WIDTHS]))])
    # The largest value of the likelihood near the pole: keeps the integrand of order one when s is far from 0.
    shift = min(0.5 * b * s**2, gamma * abs(s))

    def integral(power):
        def integrand(z):
            return k0(gamma * abs(z)) * np.exp(shift - 0.5 * b * (z - s) ** 2) * (z - s) ** power

        small = 1e-14 * width ** (power + 1)  # where the mass is about 0, as that of z - s is far from the pole
        return sum(quad(integrand, low, high, epsabs=small, epsrel=1e-11, limit=200)[0] for low, high in pairwise(ends))

    total, first, second = (integral(power) for power in range(3))
    mean, square = first / total, second / total
    return ProductMoments(s + mean, square - mean**2, 0.5 * b * square)
