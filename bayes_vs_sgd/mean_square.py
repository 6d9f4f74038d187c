r"""Limits of the learning rate at a minimum: where the mean of the linearised dynamics grows, and where its variance does.

On a quadratic the mean of a mode decays where :math:`\eta \lambda < 2 (1 + \mu)`, and the second moments of plain SGD obey

.. math:: S' = (I - \eta H) S (I - \eta H) + \frac{\eta^2}{B} \Big( \frac1n \sum_i H_i S H_i - H S H \Big) + \dots

with H_i the Hessian of one example: they are bounded only where this map contracts, which may end long before eta lambda = 2.
On isotropic Gaussian inputs, with batches of one, it ends at 2/(d + 2).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import bisect

from .curvature import DENSE
from .dynamics import Optimizer
from .model import Position
from .posterior import Posterior

MOST_NUMBERS = 2 * 10**7
"""Numbers in the Hessians of all examples, which the mean-square limit needs."""
MOST_MODES = 64
CURVED = 0.05
"""Curvature over the largest of the modes whose variance the limit is about: in flat directions it grows at any rate."""

LOWEST = 1e-6
"""Share of 2 over the largest curvature below which a limit is not looked for."""


def edge(momentum: float, nesterov: bool = False) -> float:
    """Half the eta lambda at which the mean of a quadratic mode no longer decays: 1 + mu, over 1 + 2 mu where it looks ahead."""
    return (1 + momentum) / (1 + 2 * momentum) if nesterov else 1 + momentum


def is_nesterov(dynamics: Optimizer) -> bool:
    """Whether momentum looks ahead."""
    return bool(dict(dynamics.options).get("nesterov", False))


def mean_square_limit(target: Posterior, position: Position, batch_size: float) -> float | None:
    """Largest learning rate of SGD that keeps second moments bounded where the loss curves; None if too dear or nearly 0."""
    modes = curved_modes(target, position)
    return None if modes is None else limit_of(*modes, batch_size)


def curved_modes(
    target: Posterior, position: Position
) -> tuple[Float[np.ndarray, "n k k"], Float[np.ndarray, " k"]] | None:
    """Hessians of the examples within the directions that curve, and the eigenvalues of their mean there."""
    size, number = target.model.num_parameters, target.model.num_examples
    if size > DENSE or not target.model.holds_examples or number * size**2 > MOST_NUMBERS:
        return None
    hessians = np.asarray(_example_hessians(target, position), float)
    values, vectors = np.linalg.eigh(hessians.mean(axis=0))
    kept = values > CURVED * values[-1]
    if not 0 < kept.sum() <= MOST_MODES:
        return None
    within = np.einsum("ai,nab,bj->nij", vectors[:, kept], hessians, vectors[:, kept], optimize=True)
    return within, values[kept]


def limit_of(within: Float[np.ndarray, "n k k"], values: Float[np.ndarray, " k"], batch_size: float) -> float | None:
    """Learning rate at which second moments no longer shrink, at most 2 over the largest curvature; None where it is nearly 0."""
    highest = 2 / float(values[-1])
    if growth(within, values, batch_size, highest * (1 - 1e-9)) < 1:
        return highest
    if growth(within, values, batch_size, LOWEST * highest) >= 1:  # the examples bend by far more than their mean
        return None
    limit = bisect(
        lambda rate: growth(within, values, batch_size, rate) - 1, LOWEST * highest, highest, xtol=1e-6 * highest
    )
    return float(limit)  # pyright: ignore[reportArgumentType]


def growth(
    within: Float[np.ndarray, "n k k"], values: Float[np.ndarray, " k"], batch_size: float, rate: float
) -> float:
    """Factor by which second moments grow in a step of SGD, by power iteration on positive matrices, which the map keeps."""
    moment, found = np.eye(len(values)), 0.0
    mean, step = np.diag(values), np.diag(1 - rate * values)
    for _ in range(1000):
        halves = within @ moment
        spread = np.einsum("nij,nkj->ik", halves, within, optimize=True) / len(within) - mean @ moment @ mean
        moment = step @ moment @ step + rate**2 / batch_size * spread
        before, found = found, float(np.trace(moment))
        moment /= found
        if abs(found - before) < 1e-10 * found:
            break
    return found


@eqx.filter_jit
def _example_hessians(target: Posterior, position: Position) -> Float[Array, "n d d"]:
    def loss(vector, row):
        return target.model.example_losses(target.unflat(vector), row[None])[0]

    here = target.flat(position)
    rows = jnp.arange(target.model.num_examples)
    return jax.lax.map(lambda row: jax.jacfwd(jax.grad(loss))(here, row), rows, batch_size=64)
