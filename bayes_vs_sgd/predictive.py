r"""Prediction under the posterior: training and generalisation loss, functional variance, WAIC.

With r_i the loss of example i at the posterior's draws,

.. math:: T = -\tfrac1n \sum_i \log E[e^{-r_i}], \quad V = \sum_i \mathrm{Var}[r_i], \quad
    \mathrm{WAIC} = T + \beta V / n, \quad \nu = \beta V / 2,

with nu the singular fluctuation; the generalisation loss G is T on examples that nothing was fitted to. At beta = 1 both WAIC
and G exceed the loss at w* by lambda/n on average (Watanabe, JMLR 11 (2010), Theorems 1 and 2).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .model import Position
from .posterior import Posterior


class Predictive(NamedTuple):
    """Of each example: -log E[exp(-r)], and Var[r]."""

    losses: Float[np.ndarray, " m"]
    variances: Float[np.ndarray, " m"]


def predictive(target: Posterior, particles: np.ndarray, weights: np.ndarray, held_out: bool = False) -> Predictive:
    """Predictive losses and variances of the examples, or of those held out, under weighted particles (s, d)."""
    losses, variances = _pointwise(target, jnp.asarray(particles, float), jnp.asarray(weights, float), held_out)
    return Predictive(np.asarray(losses, float), np.asarray(variances, float))


@eqx.filter_jit
def example_losses(target: Posterior, position: Position, held_out: bool) -> Float[Array, " m"]:
    """Loss of each example, or of each one held out, at a position."""
    return target.model.held_out_losses(position) if held_out else target.model.example_losses(position)


@eqx.filter_jit
def _pointwise(target: Posterior, particles: Array, weights: Array, held_out: bool) -> tuple[Array, Array]:
    """One pass over the particles, so that memory does not grow with their number; relative to the heaviest."""
    base = example_losses(target, target.unflat(particles[jnp.argmax(weights)]), held_out)

    def add(sums, weighted):
        weight, particle = weighted
        relative = example_losses(target, target.unflat(particle), held_out) - base
        moved = jnp.stack([weight * relative, weight * relative**2])
        return (sums[0] + moved, jnp.logaddexp(sums[1], jnp.log(weight) - relative)), None

    start = (jnp.zeros((2, base.shape[0])), jnp.full(base.shape, -jnp.inf))
    ((mean, square), log_mean), _ = jax.lax.scan(add, start, (weights, particles))
    return base - log_mean, square - mean**2


def prediction_distance(
    target: Posterior, particles: np.ndarray, weights: np.ndarray, optimum: Position, probes: bool
) -> float:
    """E of the mean squared distance of predictions from those of the optimum, on the data's inputs or on the probes."""
    return float(weights @ np.asarray(_distances(target, jnp.asarray(particles, float), optimum, probes), float))


@eqx.filter_jit
def _distances(target: Posterior, particles: Array, optimum: Position, probes: bool) -> Array:
    model = target.model
    inputs = model.probes if probes else None
    known = model.predictions(optimum, inputs)

    def distance(particle):
        found = model.predictions(target.unflat(particle), inputs)
        return sum(jnp.mean((found[name] - known[name]) ** 2) for name in known)

    return jax.lax.map(distance, particles, batch_size=16)
