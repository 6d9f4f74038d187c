r"""Is the learning rate small? Against the curvature, and against the limit beyond which the variance grows without bound.

On a quadratic SGD is at 1/(1 - eta lambda / 2) times the temperature of small steps, and its second moments obey

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

from ..curvature import LANCZOS
from ..dynamics.gradients import Minibatch
from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, judged
from .local import Local

SMALL = 0.2
"""Margin of eta lambda: the sharpest mode is then a tenth too hot."""
MOST_NUMBERS = 2 * 10**7
"""Numbers in the Hessians of all examples, which the mean-square limit needs."""
MOST_MODES = 64
CURVED = 0.05
"""Curvature over the largest of the modes whose variance the limit is about: in flat directions it grows at any rate."""
NUM_BATCHES = 256


def edge(momentum: float, nesterov: bool = False) -> float:
    """Half the eta lambda at which the mean of a quadratic mode no longer decays: 1 + mu, over 1 + 2 mu where it looks ahead."""
    return (1 + momentum) / (1 + 2 * momentum) if nesterov else 1 + momentum


def small_steps(place: Local, learning_rate: float, momentum: float = 0.0, nesterov: bool = False) -> Assumption:
    """Eta lambda over 1 + mu, lambda the largest (preconditioned) curvature: 2 is the edge of stability."""
    low, high = (learning_rate * bound / edge(momentum, nesterov) for bound in place.sharpness)
    note = "" if low == high else f"sharpness by {LANCZOS} Lanczos products, and how much of it they may miss"
    return judged("small learning rate", "learning rate x sharpness", low, (low, high), 0.0, SMALL, note)


def stability(
    target: Posterior, batch_size: int, learning_rate: float, position: Position, place: Local
) -> Assumption | None:
    """Learning rate over the mean-square limit, which must be below 1; None where the limit is too dear."""
    limit = mean_square_limit(target, position, batch_size, place)
    if limit is None:
        return None
    value = learning_rate / limit
    sharp, error = batch_sharpness(target, batch_size, position)
    note = f"limit {limit:.3g}; batch sharpness {sharp:.3g} ± {error:.1g} beside 2/eta = {2 / learning_rate:.3g}"
    return judged(
        "mean-square stability", "learning rate over its mean-square limit", value, (value, value), 0.0, 1.0, note
    )


def mean_square_limit(target: Posterior, position: Position, batch_size: int, place: Local) -> float | None:
    """Largest learning rate at which the second moments stay bounded, in the directions that curve."""
    size, number = target.model.num_parameters, target.model.num_examples
    if place.hessian is None or number * size**2 > MOST_NUMBERS:
        return None
    hessians = np.asarray(_example_hessians(target, position), float)
    values, vectors = np.linalg.eigh(hessians.mean(axis=0))
    kept = values > CURVED * values[-1]
    if not 0 < kept.sum() <= MOST_MODES:
        return None
    within = np.einsum("ai,nab,bj->nij", vectors[:, kept], hessians, vectors[:, kept], optimize=True)
    mean = np.diag(values[kept])

    def growth(rate: float) -> float:
        """Spectral radius by power iteration on positive matrices, which the map keeps."""
        moment, found = np.eye(len(mean)), 0.0
        step = np.eye(len(mean)) - rate * mean
        for _ in range(1000):
            halves = within @ moment
            spread = np.einsum("nij,nkj->ik", halves, within, optimize=True) / number - mean @ moment @ mean
            moment = step @ moment @ step + rate**2 / batch_size * spread
            before, found = found, float(np.trace(moment))
            moment /= found
            if abs(found - before) < 1e-10 * found:
                break
        return found

    highest = 2 / float(values[-1])
    if growth(highest * (1 - 1e-9)) < 1:
        return highest
    return float(bisect(lambda rate: growth(rate) - 1, 1e-6 * highest, highest, xtol=1e-6 * highest))  # pyright: ignore[reportArgumentType]


@eqx.filter_jit
def _example_hessians(target: Posterior, position: Position) -> Float[Array, "n d d"]:
    def loss(vector, row):
        return target.model.example_losses(target.unflat(vector), row[None])[0]

    here = target.flat(position)
    rows = jnp.arange(target.model.num_examples)
    return jax.lax.map(lambda row: jax.jacfwd(jax.grad(loss))(here, row), rows, batch_size=64)


def batch_sharpness(target: Posterior, batch_size: int, position: Position, seed: int = 0) -> tuple[float, float]:
    """Mean over batches of g_B' H_B g_B / |g_B|^2, and its standard error (Andreyev and Beneventano 2024, Def. 3).

    A mean of ratios: on isotropic Gaussian regression with batches of one it is d, the ratio of means d + 4.
    """
    ratios = np.asarray(_batch_sharpness(target, Minibatch(batch_size), position, jax.random.key(seed)), float)
    ratios = ratios[np.isfinite(ratios)]  # a batch whose gradient is exactly zero has none
    return float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))


@eqx.filter_jit
def _batch_sharpness(target, batch, position, key):
    def one(key):
        rows, _ = batch.draw(target.model.num_examples, key, ())
        gradient = jax.grad(lambda v: jnp.mean(target.model.example_losses(target.unflat(v), rows)))
        here = target.flat(position)
        slope, bent = jax.jvp(gradient, (here,), (gradient(here),))
        return slope @ bent / (slope @ slope)

    return jax.lax.map(one, jax.random.split(key, NUM_BATCHES), batch_size=64)
