r"""Entropy production of a run, from its trajectories alone.

A stationary process whose local mean velocity is :math:`\nu` produces entropy at the rate :math:`E[\nu' D^{-1} \nu]`, which is
the maximum of :math:`2 E[g \cdot \nu] - E[g' D g]` over all fields g (the uncertainty relation of short currents: Otsubo, Ito,
Dechant and Sagawa, PRE 101, 062106 (2020)). Among the linear fields of a few directions it is

.. math:: \sigma = \mathrm{tr}(D^{-1} Q S^{-1} Q'), \qquad Q = \tfrac12 E[x_{t+1} x_t' - x_t x_{t+1}'],

a step, S the covariance, 2 D that of what a linear regression of the next position leaves, and 2 Q the areas swept: a lower bound
where the noise is of one size, the rate itself for a linear process in all its directions (an Ornstein-Uhlenbeck process of drift
K has Q = KS - D), and zero for a reversible one, at any learning rate. Nothing of the linear theory enters but which directions
are looked at: those that the noise shakes most. The unit is tr(D S^{-1}), the sum of the rates at which these relax, tr K.

A squared area rate is positive by chance too. With M = D^{-1/2} Q S^{-1/2} the rate is |M|^2; chains resampled with replacement
give matrices M*, whose mean square distance from M is taken off, and their 95 % quantile of the distance is how far the root of
the rate may be off.
"""

import numpy as np
from jaxtyping import Float

from .assumption import CONFIDENCE, Assumption, from_interval, undefined
from .isotropy import COMMUTATION
from .local import ROUNDING, Local

MOST_SHAKEN = 3
"""Directions that are looked at: the bound grows with them, and the error with their pairs."""
PRODUCTION = COMMUTATION**2
"""Margin: of two modes of one temperature the production is the square of the relative area rate, or more."""
NUM_RESAMPLED = 1000
"""Of the ensemble of chains."""


def shaken_directions(place: Local) -> Float[np.ndarray, "d k"]:
    """Main directions of the noise, within those that are not flat: at most three."""
    _, vectors = place.modes()
    assert place.noise is not None  # so are the modes
    values, axes = np.linalg.eigh(vectors.T @ place.noise @ vectors)
    kept = [i for i in np.argsort(-values)[:MOST_SHAKEN] if values[i] > ROUNDING * values[-1]]
    return vectors @ axes[:, kept]


def entropy_production(
    paths: Float[np.ndarray, "chain step d"],
    directions: Float[np.ndarray, "d k"],
    seed: int = 0,
) -> Assumption:
    """Entropy that linear currents in some directions produce, over what relaxes there.

    Parameters
    ----------
    paths
        Successive positions of independent chains at stationarity.
    directions
        Orthonormal, two or more.
    seed
        Of the resampling.
    """
    x = (paths - paths.mean(axis=(0, 1))) @ directions
    sums = moments(x)
    statistic = f"entropy produced in the {x.shape[2]} most shaken directions, relative"
    if not np.linalg.eigvalsh(sums.mean(axis=(0, 1)))[0] > 0:
        return undefined("entropy production", statistic, 0.0, PRODUCTION, "the run does not move in one of them")
    weights = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), NUM_RESAMPLED)
    root = relative_current(np.mean(sums, axis=0))
    resampled = relative_current(np.einsum("bc,c...->b...", weights / len(x), sums))
    distances = np.linalg.norm(resampled - root, axis=(1, 2))
    size, reach = np.linalg.norm(root), np.quantile(distances, CONFIDENCE)
    value, interval = size**2 - np.mean(distances**2), (max(size - reach, 0.0) ** 2, (size + reach) ** 2)
    note = f"from trajectories alone; {np.mean(distances**2):.2g} of chance taken off"
    return from_interval("entropy production", statistic, float(value), interval, 0.0, PRODUCTION, note)


def moments(x: Float[np.ndarray, "chain step k"]) -> Float[np.ndarray, "chain 3 k k"]:
    """Means, along each chain, of x_t x_t', x_{t+1} x_t' and x_{t+1} x_{t+1}'."""
    now, then = x[:, :-1], x[:, 1:]
    pairs = ((now, now), (then, now), (then, then))
    return np.stack([np.einsum("cti,ctj->cij", a, b) / now.shape[1] for a, b in pairs], axis=1)


def relative_current(means: Float[np.ndarray, "*b 3 k k"]) -> Float[np.ndarray, "*b k k"]:
    """D^{-1/2} Q S^{-1/2} over the root of tr(D S^{-1}), of the means of ``moments``."""
    here, lagged, there = np.moveaxis(means, -3, 0)
    residual = there - lagged @ np.linalg.solve(here, np.swapaxes(lagged, -1, -2))
    current = (lagged - np.swapaxes(lagged, -1, -2)) / 2
    unit = np.trace(np.linalg.solve(here, residual / 2), axis1=-2, axis2=-1)
    return inverse_root(residual / 2) @ current @ inverse_root(here) / np.sqrt(unit)[..., None, None]


def inverse_root(matrix: Float[np.ndarray, "*b k k"]) -> Float[np.ndarray, "*b k k"]:
    """Symmetric inverse square root."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors / np.sqrt(values)[..., None, :] @ np.swapaxes(vectors, -1, -2)
