"""Is the learning rate small? Against the curvature, and against the limit beyond which the variance grows without bound.

On a quadratic SGD is at 1/(1 - eta lambda / 2) times the temperature of small steps; the limits are those of ``mean_square.py``.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..curvature import LANCZOS
from ..dynamics.gradients import Minibatch
from ..dynamics.optimizers import Optimizer
from ..mean_square import edge, mean_square_limit
from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, from_interval
from .local import Local

SMALL = 0.2
"""Margin of eta lambda: the sharpest mode is then a tenth too hot."""
NUM_BATCHES = 256
AVERAGING, B1 = ("adam", "adamw"), 0.9
"""Rules that average their gradients, and Optax's rate."""


def half_edge(dynamics: Optimizer) -> float:
    """Half the eta lambda at which the mean of a mode no longer decays.

    Adam averages its gradients, m' = b1 m + (1 - b1) g: heavy-ball momentum b1 at the learning rate (1 - b1) eta.
    """
    if dynamics.rule in AVERAGING:
        b1 = float(dynamics.hyperparameters.get("b1", B1))
        return edge(b1) / (1 - b1)
    return edge(dynamics.momentum, dynamics.nesterov)


def small_steps(place: Local, dynamics: Optimizer) -> Assumption:
    """Eta lambda over half of where it is at the edge of stability, lambda the largest (preconditioned) curvature."""
    low, high = (float(dynamics.step_time) * bound / half_edge(dynamics) for bound in place.sharpness)
    note = "" if low == high else f"sharpness by {LANCZOS} Lanczos products, and how much of it they may miss"
    return from_interval("small learning rate", "learning rate x sharpness", low, (low, high), 0.0, SMALL, note)


def stability(
    target: Posterior,
    batch_size: int,
    position: Position,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> Assumption | None:
    """Learning rate over the mean-square limit, which must be below 1; None where the limit is too dear."""
    limit = mean_square_limit(target, position, batch_size, momentum, nesterov)
    if limit is None:
        return None
    value = learning_rate / limit
    sharp, error = batch_sharpness(target, batch_size, position)
    sharpest = 2 * edge(momentum, nesterov) / learning_rate
    note = f"limit {limit:.3g}; batch sharpness {sharp:.3g} ± {error:.1g}, beside {sharpest:.3g} where the mean grows"
    return from_interval(
        "mean-square stability", "learning rate over its mean-square limit", value, (value, value), 0.0, 1.0, note
    )


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
