r"""Limits of the learning rate at a minimum: where the mean of the linearised dynamics grows, and where its variance does.

On a quadratic the mean of a mode decays where :math:`\eta \lambda < 2 (1 + \mu)`, and the second moments of plain SGD obey

.. math:: S' = (I - \eta H) S (I - \eta H) + \frac{\eta^2}{B} \Big( \frac1n \sum_i H_i S H_i - H S H \Big) + \dots

with H_i the Hessian of one example: they are bounded only where this map contracts, which may end long before eta lambda = 2.
On isotropic Gaussian inputs, with batches of one, it ends at 2/(d + 2). With momentum the map is of the moments of parameters and
momentum together; batches are drawn independently.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import bisect
from scipy.sparse.linalg import LinearOperator, eigs

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


def mean_square_limit(
    target: Posterior, position: Position, batch_size: float, momentum: float = 0.0, nesterov: bool = False
) -> float | None:
    """Largest learning rate of SGD that keeps second moments bounded where the loss curves; None if too dear or nearly 0."""
    modes = curved_modes(target, position)
    return None if modes is None else limit_of(*modes, batch_size, momentum, nesterov)


def curved_modes(
    target: Posterior, position: Position
) -> tuple[Float[np.ndarray, "k*k k*k"], Float[np.ndarray, " k"]] | None:
    """Mean products of the examples' Hessians within the directions that curve, and the eigenvalues of their mean there."""
    size, number = target.model.num_parameters, target.model.num_examples
    if size > DENSE or not target.model.holds_examples or number * size**2 > MOST_NUMBERS:
        return None
    hessians = np.asarray(_example_hessians(target, position), float)
    values, vectors = np.linalg.eigh(hessians.mean(axis=0))
    kept = values > CURVED * values[-1]
    if not 0 < kept.sum() <= MOST_MODES:
        return None
    within = np.einsum("ai,nab,bj->nij", vectors[:, kept], hessians, vectors[:, kept], optimize=True)
    return products(within), values[kept]


def products(hessians: Float[np.ndarray, "n k k"]) -> Float[np.ndarray, "k*k k*k"]:
    """The map of S to the mean of H_i S H_i, both as vectors."""
    number, size, _ = hessians.shape
    flat = hessians.reshape(number, -1)
    mean = (flat.T @ flat / number).reshape(size, size, size, size)  # H_ij H_kl
    return mean.transpose(0, 2, 1, 3).reshape(size**2, size**2)


def limit_of(
    second: Float[np.ndarray, "k*k k*k"],
    values: Float[np.ndarray, " k"],
    batch_size: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float | None:
    """Learning rate at which second moments no longer shrink, at most that at which the mean does not; None if nearly 0."""
    highest = 2 * edge(momentum, nesterov) / float(values[-1])

    def excess(rate: float) -> float:
        return growth(second, values, batch_size, rate, momentum, nesterov) - 1

    if excess(highest * (1 - 1e-9)) < 0:
        return highest
    if excess(LOWEST * highest) >= 0:  # the examples bend by far more than their mean
        return None
    return float(bisect(excess, LOWEST * highest, highest, xtol=1e-6 * highest))  # pyright: ignore[reportArgumentType]


def growth(
    second: Float[np.ndarray, "k*k k*k"],
    values: Float[np.ndarray, " k"],
    batch_size: float,
    rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    """Factor by which second moments grow in a step of SGD in the long run: the spectral radius of their map.

    ``second`` and ``values`` are those of ``curved_modes``. The state is z = (theta, m), m the momentum, and obeys
    z' = F z + G H_B theta; without momentum it is theta alone.
    """
    if momentum:
        ahead = momentum if nesterov else 0.0
        own = np.array([[1.0, -rate * (momentum * ahead if nesterov else momentum)], [0.0, momentum]])
        added = np.array([-rate * (1 + ahead), 1.0])
    else:
        own, added = np.ones((1, 1)), np.array([-rate])
    size = len(values)
    mean = np.diag(values)
    step = np.kron(own, np.eye(size)) + np.kron(np.outer(added, np.eye(len(own))[0]), mean)

    def moved(flat: np.ndarray) -> np.ndarray:
        moment = flat.reshape(step.shape)
        place = moment[:size, :size]
        spread = (second @ place.ravel()).reshape(place.shape) - mean @ place @ mean
        return (step @ moment @ step.T + np.kron(np.outer(added, added), spread) / batch_size).ravel()

    start = np.eye(len(step)).ravel()
    if len(start) == 1:
        return float(moved(start)[0])
    operator: Any = LinearOperator((len(start), len(start)), matvec=moved, dtype=float)  # pyright: ignore[reportCallIssue]
    return float(np.abs(eigs(operator, k=1, v0=start, return_eigenvectors=False)[0]))


@eqx.filter_jit
def _example_hessians(target: Posterior, position: Position) -> Float[Array, "n d d"]:
    def loss(vector, row):
        return target.model.example_losses(target.unflat(vector), row[None])[0]

    here = target.flat(position)
    rows = jnp.arange(target.model.num_examples)
    return jax.lax.map(lambda row: jax.jacfwd(jax.grad(loss))(here, row), rows, batch_size=64)
