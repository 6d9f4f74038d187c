r"""Langevin dynamics on a clock that waits: the time-fractional Fokker-Planck equation, solved in a harmonic well.

Let T(s) be the alpha-stable subordinator, :math:`E\, e^{-u T(s)} = e^{-s u^\alpha}`, and :math:`S_t = \inf\{s : T(s) > t\}`
its inverse. If X is a Langevin process with Fokker-Planck operator A, the law of :math:`X(S_t)` solves

.. math:: \partial_t^\alpha p = A p

with Caputo's derivative, and :math:`E\, e^{-\lambda S_t} = E_\alpha(-\lambda t^\alpha)` with the Mittag-Leffler function (after
Metzler and Klafter 2000; of SGD, after Hennick and De Baerdemacker 2025). At alpha = 1 the clock is the ordinary one.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import gamma

from ..errors import InputError
from .quadrature import unit_nodes


def mittag_leffler(x: Float[np.ndarray, "..."] | float, alpha: float) -> Float[np.ndarray, "..."]:
    r"""Mittag-Leffler function at negative arguments, :math:`E_\alpha(-x)`, for 0 < alpha <= 1.

    .. math::
        E_\alpha(-x) = \sum_{n \ge 0} \frac{(-x)^n}{\Gamma(1 + \alpha n)} = \int_0^1 \exp\Big(
            -\Big(x \frac{\sin \pi\alpha w}{\sin \pi\alpha(1 - w)}\Big)^{1/\alpha}\Big)\, dw

    The series is the definition, the integral what is computed: its integrand lies between 0 and 1. It is the spectral form
    :math:`\int_0^\infty e^{-r t} K(r)\, dr` (after Gorenflo and Mainardi 1997) with the distribution function of K as
    variable. The function falls from 1 to 0, for alpha < 1 in the end as :math:`1 / (\Gamma(1 - \alpha) x)`.

    Parameters
    ----------
    x
        Values of at least 0.
    alpha
        Index in (0, 1].

    Raises
    ------
    InputError
        If an argument is out of its range.
    """
    x = np.asarray(x, float)
    if not (np.all(x >= 0) and 0 < alpha <= 1):
        raise InputError(f"E_alpha(-x) at alpha = {alpha:g}, x = {x}: give x >= 0 and 0 < alpha <= 1")
    w, rest, weight = unit_nodes(4001)
    # The angle is counted from whichever of 0 and pi the sine is small at; the nodes are symmetric.
    sine = np.sin(np.pi * np.where(w < 0.5, alpha * w, (1 - alpha) + alpha * rest))
    with np.errstate(over="ignore"):  # to infinity, whose exponential is 0
        power = (x[..., None] * (sine / sine[::-1])) ** (1 / alpha)
    return np.exp(-power) @ weight


def mean_position(start: float, rate: float, time: Float[np.ndarray, "..."] | float, alpha: float) -> np.ndarray:
    r"""Mean of dX = -lambda X ds + sqrt(2 T) dW on the inverse stable clock: :math:`x_0 E_\alpha(-\lambda t^\alpha)`.

    Parameters
    ----------
    start
        x_0.
    rate
        lambda, in 1/operational time, which is physical time to the power alpha.
    time
        t, physical.
    alpha
        Index in (0, 1].
    """
    return start * mittag_leffler(rate * np.asarray(time, float) ** alpha, alpha)


def second_moment(
    start: float, rate: float, temperature: float, time: Float[np.ndarray, "..."] | float, alpha: float
) -> np.ndarray:
    r"""Mean square on the inverse clock: :math:`T/\lambda + (x_0^2 - T/\lambda) E_\alpha(-2 \lambda t^\alpha)`.

    Parameters
    ----------
    start, rate, time, alpha
        As in ``mean_position``.
    temperature
        T.
    """
    relaxed = mittag_leffler(2 * rate * np.asarray(time, float) ** alpha, alpha)
    return temperature / rate + (start**2 - temperature / rate) * relaxed


def free_displacement(diffusion: float, time: Float[np.ndarray, "..."] | float, alpha: float) -> np.ndarray:
    r"""Mean square displacement of sqrt(2 K) W on the inverse clock: 2 K E S_t = :math:`2 K t^\alpha / \Gamma(1 + \alpha)`.

    Parameters
    ----------
    diffusion
        K, in length squared / operational time.
    time, alpha
        As in ``mean_position``.
    """
    return 2 * diffusion * np.asarray(time, float) ** alpha / gamma(1 + alpha)
