"""Whether the noise of a gradient is normal at a position."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DENSE
from ..dynamics.gradients import Fresh, Gradient, Minibatch
from ..dynamics.noise import batch_size_of
from ..model import Position
from ..posterior import Posterior
from .assumption import Assumption, from_interval, measured
from .local import NUM_PROBES
from .noise import NO_VARIANCE, has_variance, noise_rows, noise_samples, num_draws

KURTOSIS = 1.0
"""Margin of the excess kurtosis."""


def central_limit(target: Posterior, gradient: Gradient, position: Position, seed: int = 0) -> Assumption:
    """Excess kurtosis of the noise along its main directions (random ones beyond 2,000 parameters), the largest in size.

    Of a batch drawn with replacement it is that of one example over B, from all examples; without a variance it is infinite.
    """
    statistic = "excess kurtosis of the noise"
    if not has_variance(gradient):
        return from_interval("central limit", statistic, np.inf, (np.inf, np.inf), 0.0, KURTOSIS, NO_VARIANCE)
    sampled = isinstance(gradient, Minibatch) and not isinstance(gradient, Fresh)
    if target.model.num_parameters > DENSE:
        directions = np.random.default_rng(seed).normal(size=(NUM_PROBES, target.model.num_parameters))
        if sampled:
            along = np.stack([np.asarray(_slopes(target, position, jnp.asarray(v, float))) for v in directions], axis=1)
            batch = batch_size_of(gradient, target.model.num_examples) or 1.0
        else:
            along, batch = noise_samples(target, gradient, position, seed, num_draws(target)) @ directions.T, 1.0
    else:
        if sampled:
            rows, batch = noise_rows(target, gradient, position)
        else:  # normal weights on the examples make another law than a batch
            rows, batch = noise_samples(target, gradient, position, seed, num_draws(target)), 1.0
        _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
        share = np.cumsum(sizes**2) / max(np.sum(sizes**2), np.finfo(float).tiny)
        along = rows @ directions[: int(np.searchsorted(share, 0.99)) + 1].T
    along = along - along.mean(axis=0)
    fourth = along**4 / np.mean(along**2, axis=0) ** 2
    excess = fourth.mean(axis=0) - 3
    worst = int(np.argmax(np.abs(excess)))
    error = 0.0 if sampled else fourth[:, worst].std() / np.sqrt(len(along))
    needed = f"; within the margin from batches of {np.ceil(abs(excess[worst]) / KURTOSIS):,.0f} on"
    note = f"largest of {along.shape[1]} directions" + (needed if sampled else "")
    return measured("central limit", statistic, excess[worst] / batch, error, 0.0, KURTOSIS, note)


@eqx.filter_jit
def _slopes(target: Posterior, position: Position, vector: Float[Array, " d"]) -> Float[Array, " n"]:
    """Slope of each example's loss along a direction."""
    here = target.flat(position)
    return jax.jvp(lambda v: target.model.example_losses(target.unflat(v)), (here,), (vector,))[1]
