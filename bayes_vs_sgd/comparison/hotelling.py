r"""Is a mean vector zero, perhaps but for one direction? Hotelling's test, its law by resampling whole items.

.. math:: T^2 = \min_c\, (\bar u - c\,\bar a)^\top \hat\Sigma^{-1} (\bar u - c\,\bar a),

where :math:`u_i` are the features of item i, :math:`\hat\Sigma` their covariance and a the direction in which a fitted number
moves them (c = 0 where none was fitted). The law of :math:`T^2` under the hypothesis is that of items drawn with replacement,
their mean less :math:`\bar u`, with covariance and direction anew each time: Stein's features are skew, and signs at random,
which would make them symmetric, reject one true hypothesis in ten at 200 items (`analyses/calibration.py` has the levels).

Efron and Tibshirani 1993, section 16; Hall and Horowitz 1996 (the centered bootstrap where a number is fitted).
"""

import numpy as np
from numpy.typing import NDArray

from .effects import LEVEL
from .embedding import NUM_BOOTSTRAP, GlobalTest

ITEMS_A_DIRECTION = 10
"""Fewest items for each principal direction of the features that is tested; the leading ones are."""
RANK = 1e-8
"""Least variance of a direction, relative to the largest, that is not rounding."""


def mean_vector_test(
    name: str,
    features: NDArray,
    rng: np.random.Generator,
    direction: NDArray | None = None,
    tilts: NDArray | None = None,
) -> GlobalTest:
    """Test whether the mean of independent items vanishes.

    Parameters
    ----------
    name
        Of the test.
    features
        Of the items (item, p).
    rng
        Of the resampling.
    direction
        Change of each item's features by the fitted number (item, p).
    tilts
        Changes of the items' weights (q, item) that make q alternatives, for the power.

    Returns
    -------
    GlobalTest
        ``p_holm`` is not yet adjusted.
    """
    number = len(features)
    to_white = _leading(features)
    features, direction = features @ to_white, None if direction is None else direction @ to_white
    weights = rng.multinomial(number, np.full(number, 1 / number), size=NUM_BOOTSTRAP) / number
    mean, along, covariance = _moments(np.full((1, number), 1 / number), features, direction)
    (statistic,) = _hotelling(mean, along, covariance)
    means, along, covariance = _moments(weights, features, direction)
    null = _hotelling(means - mean, along, covariance)
    p = (1 + np.sum(null >= statistic)) / (1 + len(null))
    power = None
    if tilts is not None:
        moved = [_hotelling(means - mean + tilt @ features, along, covariance) for tilt in tilts]
        power = float(np.mean(np.array(moved) > np.quantile(null, 1 - LEVEL)))
    return GlobalTest(name, float(number * statistic), float(p), float(p), power)


def _leading(features: NDArray) -> NDArray:
    """A that makes the leading principal directions of the standardised features white (p, r)."""
    spread = np.where(np.ptp(features, axis=0) > 0, features.std(axis=0), 1)
    vectors, sizes, _ = np.linalg.svd(np.atleast_2d(np.cov((features / spread).T)))
    kept = sizes > RANK * sizes[0]
    kept[max(len(features) // ITEMS_A_DIRECTION, 1) :] = False
    return vectors[:, kept] / np.sqrt(sizes[kept]) / spread[:, None]


def _moments(weights: NDArray, features: NDArray, direction: NDArray | None) -> tuple[NDArray, NDArray | None, NDArray]:
    """Mean of the features (b, r) and of the direction, and the features' covariance (b, r, r), for weights (b, item)."""
    size = features.shape[1]
    means = weights @ features
    seconds = weights @ (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    covariance = seconds.reshape(-1, size, size) - means[:, :, None] * means[:, None, :]
    return means, None if direction is None else weights @ direction, covariance


def _hotelling(mean: NDArray, along: NDArray | None, covariance: NDArray) -> NDArray:
    """T^2 / item of each mean (b, r)."""
    whole = _product(mean, covariance, mean)
    if along is None:
        return whole
    explained = _product(along, covariance, mean) ** 2 / _product(along, covariance, along)
    return np.where(whole - explained > RANK * whole, whole - explained, 0.0)


def _product(left: NDArray, covariance: NDArray, right: NDArray) -> NDArray:
    ridge = RANK * np.eye(covariance.shape[-1])  # a few items drawn again may have no spread
    return np.sum(left * np.linalg.solve(covariance + ridge, right[..., None])[..., 0], axis=-1)
