"""Gradients drawn at one position, and the covariance of their noise."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DENSE, example_gradients
from ..dynamics.gradients import Gradient
from ..dynamics.noise import StableNoise, batch_size_of
from ..model import Position
from ..posterior import Posterior

NUM_DRAWS = 20_000
MOST_DRAWS_OF_A_TRACE = 1000
"""Gradients drawn where their covariance is not known from the examples."""
MOST_NUMBERS = 4 * 10**7
"""Numbers in the gradients drawn at a position."""
NO_VARIANCE = "the noise has no variance, so there is no covariance to look at"


def has_variance(gradient: Gradient) -> bool:
    """Whether the noise has a covariance: not where it is stable with a tail index below 2."""
    return not (isinstance(gradient, StableNoise) and bool(np.any(np.asarray(gradient.alpha) < 2)))


def num_draws(target: Posterior) -> int:
    """How many gradients are drawn at a position: fewer of many parameters."""
    return int(np.clip(MOST_NUMBERS // target.model.num_parameters, 16, NUM_DRAWS))


def noise_samples(target: Posterior, gradient: Gradient, position: Position, seed: int, num_draws: int) -> np.ndarray:
    """Gradients drawn at a position less the mean gradient, one a row; each at the beginning of an epoch."""
    draws = gradient_samples(target, gradient, position, jax.random.key(seed), num_draws)
    return np.asarray(draws, float) - np.asarray(mean_gradient(target, position), float)


@eqx.filter_jit
def gradient_samples(
    target: Posterior, gradient: Gradient, position: Position, key: Array, num_draws: int
) -> Float[Array, "s d"]:
    """Gradients drawn at a position, one a row; each at the beginning of an epoch."""
    keys = jax.random.split(key, num_draws)
    return jax.lax.map(lambda key: drawn(target, gradient, position, key), keys, batch_size=256)


@eqx.filter_jit
def mean_gradient(target: Posterior, position: Position) -> Float[Array, " d"]:
    """Gradient of the loss on all examples."""
    return target.flat(jax.grad(target.model.loss)(position))


def drawn(target: Posterior, gradient: Gradient, position: Position, key: Array) -> Float[Array, " d"]:
    """One gradient at a position, at the beginning of an epoch."""
    key_state, key_draw = jax.random.split(key)
    state = gradient.init(target.model.num_examples, key_state)
    return target.flat(gradient.estimate(target, key_draw, state, position)[0])


def noise_covariance(
    target: Posterior, gradient: Gradient, position: Position, seed: int = 0
) -> Float[np.ndarray, "d d"]:
    """Cov g_B: from all examples where it is C/B, else of gradients drawn."""
    rows, batch = noise_rows(target, gradient, position, seed)
    return np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], -1) / batch


def noise_rows(
    target: Posterior, gradient: Gradient, position: Position, seed: int = 0
) -> tuple[Float[np.ndarray, "m d"], float]:
    """Noise of each example's gradient, and B; or of gradients drawn, and 1."""
    batch = batch_size_of(gradient, target.model.num_examples)
    if batch is None:
        return noise_samples(target, gradient, position, seed, num_draws(target)), 1.0
    rows = np.asarray(example_gradients(target.model, position), float)
    return rows - rows.mean(axis=0), batch


def noise_traces(target: Posterior, gradient: Gradient, positions: Position, seed: int = 0) -> Float[np.ndarray, " p"]:
    """Tr Cov g_B at each of some positions: from all examples where it is C/B and parameters are few, else of gradients drawn."""
    batch = batch_size_of(gradient, target.model.num_examples) if target.model.num_parameters <= DENSE else None
    if batch is not None:
        return np.asarray(_example_traces(target.model, positions), float) / batch
    number = min(num_draws(target), MOST_DRAWS_OF_A_TRACE)
    return np.asarray(_drawn_traces(target, gradient, positions, jax.random.key(seed), number), float)


@eqx.filter_jit
def _example_traces(model, positions):
    return jax.lax.map(lambda position: example_gradients(model, position).var(axis=0).sum(), positions)


@eqx.filter_jit
def _drawn_traces(target, gradient, positions, key, number):
    def trace(position):
        return gradient_samples(target, gradient, position, key, number).var(axis=0).sum()

    return jax.lax.map(trace, positions)
