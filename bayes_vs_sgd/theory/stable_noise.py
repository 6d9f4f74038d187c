r"""What alpha-stable noise does in a well, and what the logarithm of a law's size is on average.

Scales are those of the characteristic function :math:`\exp(-|k|^\alpha)` a unit of time, in which alpha = 2 is a normal law
of variance 2. ``stable.symmetric_stable`` draws noise 2^(-1/2) times as large.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gamma

from ..errors import InputError
from .quadrature import unit_nodes


def stationary_scale(alpha: float, rate: float = 1.0, step: float = 0.0) -> float:
    r"""Scale of the stationary law of dX = -lambda X dt + dL, which is alpha-stable as the noise is.

    .. math::
        \sigma = (\alpha \lambda)^{-1/\alpha}, \qquad
        \sigma = \Big(\frac{\eta}{1 - |1 - \eta \lambda|^\alpha}\Big)^{1/\alpha}

    in continuous time and for X' = X - eta lambda X + eta^(1/alpha) xi. From
    :math:`\sigma^\alpha = \int_0^\infty e^{-\alpha \lambda t} dt` and its geometric series.

    Parameters
    ----------
    alpha
        Index of the noise, in (0, 2].
    rate
        lambda, in 1/time.
    step
        eta, in time; 0 for continuous time.

    Raises
    ------
    InputError
        If the index is not in (0, 2], or 0 <= eta lambda < 2 does not hold.
    """
    if not (0 < alpha <= 2 and rate > 0 and 0 <= step * rate < 2):
        raise InputError(f"alpha {alpha:g}, rate {rate:g}, step {step:g}: give 0 < alpha <= 2 and 0 <= step * rate < 2")
    power = 1 / (alpha * rate) if step == 0 else step / (1 - abs(1 - step * rate) ** alpha)
    return power ** (1 / alpha)


def exit_time(alpha: float, noise: float, width: float) -> float:
    r"""Mean time that dX = -V'(X) dt + eps dL takes to leave |x| < a, for small eps: one jump does it.

    .. math:: E \tau \approx \frac{(a / \varepsilon)^\alpha}{C_\alpha}, \qquad
        C_\alpha = \frac2\pi \Gamma(\alpha) \sin \frac{\pi \alpha}2

    The rate at which the noise jumps farther than a is :math:`C_\alpha (\varepsilon / a)^\alpha`, whatever the depth of the
    well, its minimum being at 0 (after Imkeller and Pavlyukevich 2006). ``exit_time_remainder`` is what is left out.

    Parameters
    ----------
    alpha
        Index of the noise, in (0, 2).
    noise, width
        eps, in length / time^(1/alpha), and a.

    Raises
    ------
    InputError
        If the index is not in (0, 2): Brownian noise does not jump.
    """
    if not 0 < alpha < 2:
        raise InputError(
            f"alpha is {alpha:g}: give 0 < alpha < 2, as noise without jumps leaves a well by Kramers' law"
        )
    return float((width / noise) ** alpha * np.pi / (2 * gamma(alpha) * np.sin(np.pi * alpha / 2)))


def exit_time_remainder(alpha: float, width: float, force: Callable[[np.ndarray], np.ndarray]) -> float:
    r"""By how much the mean exit time is shorter than ``exit_time``, for small eps: a time that does not depend on eps.

    .. math::
        \int_0^1 \Big(\frac{(1 - w)^{-\alpha} + (1 + w)^{-\alpha}}2 - 1\Big) (w^{-\alpha} - 1) \frac{a}{V'(a w)}\, dw

    A jump that falls short leaves the process at y, from where it slides back; on its way a shorter jump is enough. The
    three factors are the excess of the rate of exit at x = a w, the rate of jumps into the well beyond x in units of that
    of exit, and the time spent at x.

    Parameters
    ----------
    alpha
        Index of the noise, in (0, 2).
    width
        a.
    force
        V', odd, and positive on (0, a).
    """
    w, rest, weight = unit_nodes()
    log_w = np.where(w < 0.5, np.log(w), np.log1p(-np.minimum(rest, 0.5)))
    log_rest = np.where(w > 0.5, np.log(rest), np.log1p(-np.minimum(w, 0.5)))
    excess = (np.expm1(-alpha * log_rest) + np.expm1(-alpha * np.log1p(w))) / 2
    # Near 0 rounding leaves little of the two powers.
    excess = np.where(w < 1e-5, alpha * (alpha + 1) / 2 * w**2, excess)
    return float(np.sum(weight * excess * np.expm1(-alpha * log_w) * width / force(width * w)))


def mean_log_size(characteristic_function: Callable[[np.ndarray], np.ndarray]) -> float:
    r"""E log |Y| of a symmetric law with a density, from its characteristic function phi.

    .. math:: E \log |Y| = \int_0^1 \frac{1 - \varphi(k)}k\, dk - \int_1^\infty \frac{\varphi(k)}k\, dk - \gamma

    with Euler's gamma; it is so for a single number y, with phi(k) = cos k y. Log-moment estimators of a tail index
    converge to differences of such means, whether there is a tail or not.

    Parameters
    ----------
    characteristic_function
        phi on positive numbers, falling at infinity as a power or faster.
    """
    w, _, weight = unit_nodes(4001)
    inner, outer = (1 - characteristic_function(w)) / w, characteristic_function(1 / w) / w
    return float(np.sum(weight * (inner - outer)) - np.euler_gamma)
