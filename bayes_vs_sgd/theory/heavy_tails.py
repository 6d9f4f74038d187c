"""Heavy tails that SGD makes of light ones: the tail index of its stationary law on linear regression."""

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import chi

from ..errors import InputError
from .quadrature import unit_nodes


def moment_growth(order: float, learning_rate: float, batch_size: int = 1, dimension: int = 1) -> float:
    r"""Factor by which one step of SGD multiplies :math:`E \|\theta\|^s` far from the optimum.

    A step on linear regression with inputs x ~ N(0, I_d) multiplies theta by :math:`M = I - (\eta/b) \sum_i x_i x_i^T`.
    No direction is special, so the factor is :math:`E \|M e\|^s` for any unit vector e. With
    :math:`\tau \sim \chi^2_{b+d-1}` and an independent :math:`\beta \sim` Beta(b/2, (d-1)/2), which is 1 in one dimension,

    .. math:: \|M e\|^2 = 1 - \beta + \beta (1 - \eta \tau / b)^2.

    Parameters
    ----------
    order
        s.
    learning_rate, batch_size, dimension
        eta, b and d.

    Raises
    ------
    InputError
        If the learning rate is not positive, or a count is below 1.
    """
    return float(np.exp(_log_growth(order, learning_rate, batch_size, dimension)))


def tail_index(learning_rate: float, batch_size: int = 1, dimension: int = 1) -> float:
    r"""Tail index of the stationary law of SGD on linear regression: P(||theta|| > u) falls as u^-alpha.

    The positive root of :math:`E \|M e\|^\alpha = 1` with M as in ``moment_growth`` (Kesten's theorem; after Gurbuzbalaban,
    Simsekli and Zhu 2021). It holds for labels with any noise that is not zero and has lighter tails.

    Parameters
    ----------
    learning_rate, batch_size, dimension
        eta, b and d.

    Raises
    ------
    InputError
        If there is no stationary law.
    """
    largest = largest_learning_rate(batch_size, dimension)
    if not 0 < learning_rate < largest:
        raise InputError(
            f"learning rate {learning_rate:g} has no stationary law: give one between 0 and {largest:g} for batch size "
            f"{batch_size} in dimension {dimension}"
        )

    def growth(order: float) -> float:
        return _log_growth(order, learning_rate, batch_size, dimension)

    upper = 1.0  # a convex function of the order, 0 at order 0 and falling there: it has one other root
    while growth(upper) < 0:
        upper *= 2
    lower = upper
    while growth(lower) >= 0:
        lower /= 2
        if lower < 1e-9:  # within rounding of the largest learning rate
            return 0.0
    return root_scalar(growth, bracket=(lower, upper), xtol=1e-12).root


def finite_variance_learning_rate(batch_size: int = 1, dimension: int = 1) -> float:
    """Learning rate of tail index 2: 2 b / (d + b + 1). Above it the stationary law has no variance."""
    return 2 * batch_size / (dimension + batch_size + 1)


def largest_learning_rate(batch_size: int = 1, dimension: int = 1) -> float:
    r"""Learning rate at which the tail index reaches 0: :math:`E \log \|M e\| = 0`. Above it there is no stationary law."""

    def growth(learning_rate: float) -> float:
        log_square, log_weight = _log_square(learning_rate, batch_size, dimension)
        return float(np.sum(np.exp(log_weight) * log_square)) / 2

    lower = finite_variance_learning_rate(batch_size, dimension)  # by Jensen's inequality growth is negative here
    upper = 2 * lower
    while growth(upper) < 0:
        upper *= 2
    return root_scalar(growth, bracket=(lower, upper), xtol=1e-12).root


def _log_growth(order: float, learning_rate: float, batch_size: int, dimension: int) -> float:
    log_square, log_weight = _log_square(learning_rate, batch_size, dimension, order)
    terms = order / 2 * log_square + log_weight
    return float(terms.max() + np.log(np.sum(np.exp(terms - terms.max()))))


def _log_square(
    learning_rate: float, batch_size: int, dimension: int, order: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return log ||M e||^2 on a grid of the root of tau and the angle of beta = sin^2, and the nodes' log probabilities."""
    if not (learning_rate > 0 and batch_size >= 1 and dimension >= 1):
        raise InputError(
            f"learning rate {learning_rate:g}, batch size {batch_size}, dimension {dimension}: give a positive learning "
            "rate and counts of at least 1"
        )
    degrees = batch_size + dimension - 1
    unit, rest, weight = unit_nodes(161 + 40 * int(np.ceil(np.sqrt(degrees))))  # both laws narrow as 1 / sqrt(degrees)
    middle = np.sqrt(batch_size / learning_rate)  # there 1 - eta tau / b vanishes and its logarithm is singular
    end = max(np.sqrt(degrees + 2 * order) + 12, 2 * middle)  # what is beyond is below e^-72, also times tau^order
    width, ratio = end - middle, end / middle - 1
    root = np.concatenate([middle * unit, middle + width * unit])
    shrunk = np.concatenate([rest * (1 + unit), ratio * unit * (2 + ratio * unit)])  # |1 - eta tau / b|, no difference
    log_weight = np.log(np.concatenate([middle * weight, width * weight])) + chi.logpdf(root, degrees)
    log_weight -= np.log(np.sum(np.exp(log_weight)))
    if dimension == 1:
        return 2 * np.log(shrunk), log_weight
    sine, cosine = np.sin(np.pi / 2 * unit), np.sin(np.pi / 2 * rest)
    across = np.log(weight) + (batch_size - 1) * np.log(sine) + (dimension - 2) * np.log(cosine)
    across -= np.log(np.sum(np.exp(across)))
    return np.log(cosine**2 + sine**2 * shrunk[:, None] ** 2), log_weight[:, None] + across
