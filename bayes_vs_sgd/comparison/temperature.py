r"""At what temperature is an ensemble? Stein's identity, no reference draws needed.

Under a law proportional to exp(log r - n beta L), any smooth vector field g satisfies

.. math:: E[\mathrm{div}\, g + g \cdot \nabla \log r] = n \beta\, E[g \cdot \nabla L],

so every g has its own estimate of n beta, and they agree only if the law is tempered. ``g = grad L`` pools all
directions; ``g = P grad L`` looks at a part of them, P the projection on a site of the program or on a direction v. Along an
observable phi of median c

.. math:: g = (\phi - c) \nabla\phi / (q + \epsilon), \quad q = |\nabla\phi|^2,

which moves phi itself at the rate of its gap: without the denominator the draws that q makes large decide. Where q may
vanish, epsilon, a tenth of its mean over the seeds, keeps g bounded. The identity holds for any c; the error is small where c
lies in the middle of the law, since g . grad L then measures the curvature and not the mean gap times a force of mean zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..curvature import GradientNoise
from ..diagnostics import ratio_of_means
from ..dynamics.base import Dynamics
from ..dynamics.noise import noise_batch
from ..dynamics.optimizers import Optimizer
from ..model import Position
from ..observables import HashableDict, Observable
from ..posterior import Posterior

EXACT_TRACE = 256
NUM_PROBES = 8
NUM_DIRECTIONS = 4
SOFT = 0.1
"""Of the mean squared slope of an observable, added to the squared slope that a field is divided by."""
SEEDS_A_PARAMETER = 10
"""Seeds a parameter from which on directions are found in the gradients of the seeds themselves."""
FLAT = 1e-6
"""Directions with less than this share of the largest mean squared gradient are not looked at."""


@dataclass(frozen=True)
class SteinTerms:
    """Per seed: div g + g . grad log r, and g . grad L."""

    prior: np.ndarray
    loss: np.ndarray

    def scale(self) -> tuple[float, float]:
        """Return n beta and its standard error (delta method, independent seeds)."""
        return ratio_of_means(self.prior, self.loss)

    def subset(self, rows: Any) -> "SteinTerms":
        """Take some seeds."""
        return SteinTerms(self.prior[rows], self.loss[rows])


@dataclass(frozen=True)
class Scores:
    """Positions of seeds as vectors, and grad log r and grad L there, each (s, d)."""

    positions: np.ndarray
    prior: np.ndarray
    loss: np.ndarray

    def directions(self) -> np.ndarray:
        """Unit vectors (k, d), from the steepest to the flattest, among the principal axes of grad L over the seeds.

        Of a quadratic they are eigenvectors of its Hessian; unlike those they are defined where minima are degenerate.
        """
        finite = self.loss[np.isfinite(self.loss).all(axis=1)]
        number, size = finite.shape
        if number < SEEDS_A_PARAMETER * size or size < 2:
            return np.empty((0, size))
        squares, axes = np.linalg.eigh(finite.T @ finite)
        steep = np.flatnonzero(squares > FLAT * squares[-1])[::-1]
        return axes.T[steep[np.unique(np.linspace(0, len(steep) - 1, NUM_DIRECTIONS).round().astype(int))]]


def scores(target: Posterior, positions: dict[str, np.ndarray]) -> Scores:
    """Gradients of an ensemble, of which the score is grad log r - n beta grad L."""
    return Scores(*(np.asarray(x, float) for x in _scores(target, jax.tree.map(jnp.asarray, positions))))


@eqx.filter_jit
def _scores(target: Posterior, positions: Position) -> tuple[Array, Array, Array]:
    def both(position):
        return jax.grad(target.log_regularizer)(position), jax.grad(target.model.loss)(position)

    prior, loss = jax.lax.map(both, positions, batch_size=256)
    flat = jax.vmap(target.flat)
    return flat(positions), flat(prior), flat(loss)


def stein_terms(
    target: Posterior,
    positions: dict[str, np.ndarray],
    modes: Mapping[str, Observable] | None = None,
    directions: np.ndarray | None = None,
) -> dict[str, SteinTerms]:
    """Stein terms of an ensemble along grad L ("loss"), its parts by site and direction, and along some observables.

    Parameters
    ----------
    target
        Model, prior and localisation; its inverse temperature does not matter.
    positions
        Unconstrained positions with a leading axis of independent seeds; those of lost ones have terms that are not finite.
    modes
        Scalar observables.
    directions
        Unit vectors (k, d) in the order of ``target.flat``.

    Returns
    -------
    dict
        Under "loss", "site NAME" where there are several, "direction 1", ..., and the names of the modes.
    """
    axes = jnp.zeros((0, target.model.num_parameters)) if directions is None else jnp.asarray(directions, float)
    found = _stein_terms(target, jax.tree.map(jnp.asarray, positions), HashableDict(modes or {}), axes)
    return {name: SteinTerms(*(np.asarray(x, float) for x in pair)) for name, pair in found.items()}


@eqx.filter_jit
def _stein_terms(
    target: Posterior, positions: Position, modes: HashableDict, directions: Array
) -> dict[str, tuple[Array, Array]]:
    model = target.model

    def loss(vector):
        return model.loss(target.unflat(vector))

    def observed(phi, vector):
        return phi(model, model.constrain(target.unflat(vector)))

    def level_and_squared_slope(position):
        vector = target.flat(position)
        found = {name: jax.value_and_grad(partial(observed, phi))(vector) for name, phi in modes.items()}
        return {name: (level, jnp.sum(slope**2)) for name, (level, slope) in found.items()}

    seen = jax.lax.map(level_and_squared_slope, positions, batch_size=256)
    center = {name: jnp.nanmedian(jnp.where(jnp.isfinite(x), x, jnp.nan)) for name, (x, _) in seen.items()}
    soft = {name: SOFT * jnp.mean(q, where=jnp.isfinite(q)) for name, (_, q) in seen.items()}

    def terms(position):
        vector = target.flat(position)
        grad_loss = jax.grad(loss)(vector)
        grad_prior = jax.grad(lambda v: target.log_regularizer(target.unflat(v)))(vector)
        prior, squares = _diagonal(loss, vector) + grad_loss * grad_prior, grad_loss**2
        found = {"loss": (jnp.sum(prior), jnp.sum(squares))}
        if len(position) > 1:
            priors, losses = target.unflat(prior), target.unflat(squares)
            found |= {f"site {name}": (jnp.sum(priors[name]), jnp.sum(losses[name])) for name in sorted(position)}
        for index, axis in enumerate(directions, 1):
            slope = axis @ grad_loss
            curvature = axis @ jax.jvp(jax.grad(loss), (vector,), (axis,))[1]
            found[f"direction {index}"] = (curvature + slope * (axis @ grad_prior), slope**2)
        for name, phi in modes.items():
            along = partial(observed, phi)
            level, slope = jax.value_and_grad(along)(vector)
            gap = level - center[name]
            bend = jax.jvp(jax.grad(along), (vector,), (slope,))[1]
            size = slope @ slope + soft[name]
            divergence = slope @ slope + gap * (jnp.sum(_diagonal(along, vector)) - 2 * slope @ bend / size)
            found[name] = ((divergence + gap * slope @ grad_prior) / size, gap * slope @ grad_loss / size)
        return found

    return jax.lax.map(terms, positions, batch_size=256)


def _diagonal(function: Callable, vector: Array) -> Array:
    """Diagonal of the Hessian: exact for few parameters, else Hutchinson's with fixed probes."""
    gradient = jax.grad(function)
    if vector.size <= EXACT_TRACE:
        return jnp.diagonal(jax.jacfwd(gradient)(vector))
    probes = jax.random.rademacher(jax.random.key(0), (NUM_PROBES, vector.size), vector.dtype)
    return jnp.mean(jax.vmap(lambda z: z * jax.jvp(gradient, (vector,), (z,))[1])(probes), axis=0)


def reference_scale(dynamics: Dynamics, target: Posterior, noise: Callable[[], GradientNoise]) -> float | None:
    """Return n beta that theory gives, or None where it gives none.

    A dynamics that targets a law has the target's own. SGD has 1/T0, T0 = (eta / 2B) tr C / rank C at the optimum (over 1 -
    momentum; times (n - B)/(n - 1) in shuffled epochs), which is a temperature only where C is isotropic and constant,
    and else a reference scale. Adaptive rules have none. ``noise`` finds C, which not every dynamics and model has.
    """
    if dynamics.law != "none":
        return float(target.scale)
    if not isinstance(dynamics, Optimizer) or dynamics.rule != "sgd" or dynamics.batch_size is None:
        return None
    batch = noise_batch(dynamics.gradient, target.model.num_examples)
    temperature = float(dynamics.step_time) * noise().per_direction / (2 * batch) / (1 - dynamics.momentum)
    return 1 / temperature if temperature > 0 else None
