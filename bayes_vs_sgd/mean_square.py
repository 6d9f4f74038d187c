r"""Limits of the learning rate at a minimum: where the mean of the linearised dynamics grows, and where its variance does.

On a quadratic the mean of a mode decays where :math:`\eta \lambda < 2 (1 + \mu)`, and the second moments of plain SGD obey

.. math:: S' = (I - \eta H) S (I - \eta H) + \frac{\eta^2}{B} \Big( \frac1n \sum_i H_i S H_i - H S H \Big) + \dots

with H_i the Hessian of one example: they are bounded only where this map contracts, which may end long before eta lambda = 2.
On isotropic Gaussian inputs, with batches of one, it ends at 2/(d + 2). With momentum the map is of the moments of parameters and
momentum together; batches are drawn independently. What one batch adds, and what becomes of it in all steps that follow, is a map
of k by k matrices, in the modes of H (A_i is the mean step of mode i, G what a gradient adds):

.. math:: S \to \frac{c}{B} \circ \Big( \frac1n \sum_i H_i S H_i - H S H \Big), \qquad
    c_{ij} = \big[(f - A_i \otimes A_j)^{-1} (G \otimes G)\big]_{\theta\theta}.

Moments grow by f where the spectral radius of this map is 1, and are bounded where it is below 1 at f = 1, both maps being
positive.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import bisect

from .curvature import DENSE
from .model import Position
from .posterior import Posterior

MOST_NUMBERS = 2 * 10**7
"""Numbers in the Hessians of all examples, which the mean-square limit needs."""
MOST_MODES = 64
CURVED = 0.05
"""Curvature over the largest of the modes whose variance the limit is about: in flat directions it grows at any rate."""

CLOSE = 1e-10
"""Relative error of a spectral radius."""
LOWEST = 1e-6
"""Share of 2 over the largest curvature below which a limit is not looked for."""


def edge(momentum: float, nesterov: bool = False) -> float:
    """Half the eta lambda at which the mean of a quadratic mode no longer decays: 1 + mu, over 1 + 2 mu where it looks ahead."""
    return (1 + momentum) / (1 + 2 * momentum) if nesterov else 1 + momentum


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
        return gain(second, values, batch_size, *mean_steps(values, rate, momentum, nesterov)) - 1

    if excess(highest * (1 - 1e-9)) < 0:
        return highest
    if excess(LOWEST * highest) >= 0:  # the examples bend by far more than their mean
        return None
    return float(bisect(excess, LOWEST * highest, highest * (1 - 1e-9), xtol=1e-6 * highest))  # pyright: ignore[reportArgumentType]


def growth(
    second: Float[np.ndarray, "k*k k*k"],
    values: Float[np.ndarray, " k"],
    batch_size: float,
    rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    """Factor by which second moments grow in a step of SGD in the long run; ``second`` and ``values`` as of ``curved_modes``."""
    steps, added = mean_steps(values, rate, momentum, nesterov)
    least = float(np.max(np.abs(np.linalg.eigvals(steps)))) ** 2  # that of the mean's square
    low = least + CLOSE * max(least, CLOSE)

    def excess(factor: float) -> float:
        return gain(second, values, batch_size, steps, added, factor) - 1

    if excess(low) <= 0:
        return least
    high = 2 * low + 1
    while excess(high) > 0:
        high *= 2
    return float(bisect(excess, low, high, xtol=1e-12 * high))  # pyright: ignore[reportArgumentType]


def mean_steps(
    values: Float[np.ndarray, " k"], rate: float, momentum: float, nesterov: bool
) -> tuple[Float[np.ndarray, "k s s"], Float[np.ndarray, " s"]]:
    """Mean step A_i of each mode, and what a gradient adds, G; of (theta, m), m the momentum, or without it of theta alone."""
    if momentum:
        ahead = momentum if nesterov else 0.0
        own = np.array([[1.0, -rate * (momentum * ahead if nesterov else momentum)], [0.0, momentum]])
        added = np.array([-rate * (1 + ahead), 1.0])
    else:
        own, added = np.ones((1, 1)), np.array([-rate])
    return own + values[:, None, None] * np.outer(added, np.eye(len(own))[0]), added


def gain(
    second: Float[np.ndarray, "k*k k*k"],
    values: Float[np.ndarray, " k"],
    batch_size: float,
    steps: Float[np.ndarray, "k s s"],
    added: Float[np.ndarray, " s"],
    factor: float = 1.0,
) -> float:
    """Spectral radius of the map of the noise, by power iteration on positive matrices, which it keeps."""
    size, parts = len(values), len(added)
    pairs = np.einsum("iab,jcd->ijacbd", steps, steps).reshape(size, size, parts**2, parts**2)
    ends = np.linalg.solve(factor * np.eye(parts**2) - pairs, np.kron(added, added)[:, None])
    kernel, mean = ends[..., 0, 0] / batch_size, np.outer(values, values)
    moment, found = np.eye(size), 0.0
    for _ in range(1000):
        moment = kernel * ((second @ moment.ravel()).reshape(size, size) - mean * moment)
        before, found = found, float(np.trace(moment))
        if found <= 0:  # all examples are alike
            return 0.0
        moment /= found
        if abs(found - before) < CLOSE * found:
            break
    return found


@eqx.filter_jit
def _example_hessians(target: Posterior, position: Position) -> Float[Array, "n d d"]:
    def loss(vector, row):
        return target.model.example_losses(target.unflat(vector), row[None])[0]

    here = target.flat(position)
    rows = jnp.arange(target.model.num_examples)
    return jax.lax.map(lambda row: jax.jacfwd(jax.grad(loss))(here, row), rows, batch_size=64)
