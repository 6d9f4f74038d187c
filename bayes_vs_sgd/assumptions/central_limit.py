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

NORMALITY = 1.0
"""Margin of skewness and excess kurtosis."""


def central_limit(target: Posterior, gradient: Gradient, position: Position, seed: int = 0) -> Assumption:
    """Skewness or excess kurtosis of the noise, the larger, along its main directions (random ones beyond 2,000 parameters).

    Of a batch drawn with replacement they are those of one example over sqrt(B) and B, from all examples; without a variance
    they are infinite.
    """
    statistic = "skewness or excess kurtosis of the noise"
    if not has_variance(gradient):
        return from_interval("central limit", statistic, np.inf, (np.inf, np.inf), 0.0, NORMALITY, NO_VARIANCE)
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
    along = along / along.std(axis=0)
    terms = np.stack([along**3, along**4 - 3], axis=1)  # (example, moment, direction)
    moments, roots = terms.mean(axis=0), np.array([[0.5], [1.0]])
    moments[0] = np.abs(moments[0])  # a direction has no sign
    moment, worst = np.unravel_index(np.argmax(np.abs(moments) / batch**roots), moments.shape)
    error = 0.0 if sampled else terms[:, moment, worst].std() / np.sqrt(len(along))
    enough = np.max((np.abs(moments) / NORMALITY) ** (1 / roots))
    note = f"{('skewness', 'excess kurtosis')[moment]}, the largest of {along.shape[1]} directions"
    note += f"; within the margin from batches of {np.ceil(enough):,.0f} on" if sampled else ""
    value = moments[moment, worst] / batch ** roots[moment, 0]
    return measured("central limit", statistic, value, error, 0.0, NORMALITY, note)


@eqx.filter_jit
def _slopes(target: Posterior, position: Position, vector: Float[Array, " d"]) -> Float[Array, " n"]:
    """Slope of each example's loss along a direction."""
    here = target.flat(position)
    return jax.jvp(lambda v: target.model.example_losses(target.unflat(v)), (here,), (vector,))[1]
