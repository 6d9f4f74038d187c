r"""Rare events of a law by tilting: particles from its draws along law . exp(-kappa max(0, c - g)), kappa from 0 up.

.. math:: P(g > c) = Z_\kappa\, E_\kappa[1\{g > c\}], \qquad Z_\kappa = E[e^{-\kappa \max(0, c - g)}]

The tilt pulls with a gradient where an indicator has none. kappa goes as far at each stage as the effective sample size allows
(``tempered.py``), and to the end as soon as half of the particles are beyond c. A law on a set {L <= l} is approached in the
same way, -L being the property: particles of the prior, pulled into the set, and counted only where they are inside.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from ..posterior import Posterior
from ..tempered import Ladder, Path
from .properties import Property

STIFFEST = 1e6
"""Largest kappa, in units of the inverse of the property's scale: no path comes near it, whatever the tail."""


class Law(eqx.Module):
    """A tempered posterior; or with a level, the prior, pulled towards {L <= level} and counted inside it."""

    target: Posterior
    level: Array | None
    pull: Array

    def __init__(self, target: Posterior, level: float | None = None, pull: float = 0.0):
        self.target, self.pull = target, jnp.asarray(pull, float)
        self.level = None if level is None else jnp.asarray(level, float)

    def log_density(self, position: Any) -> Array:
        """Log density, up to a constant, of where particles are."""
        if self.level is None:
            return self.target.log_density(position)
        outside = jnp.maximum(self.target.model.loss(position) - self.level, 0.0)
        return self.target.model.log_prior(position) - self.pull * outside

    def inside(self, position: Any) -> Array:
        """Whether a particle counts."""
        return jnp.ones((), bool) if self.level is None else self.target.model.loss(position) <= self.level


class Tilt(Path):
    """Path from a law towards {g > c}."""

    item: Property = eqx.field(static=True)
    law: Law
    starts: Float[Array, "s d"]
    threshold: Array
    stiffness: Array
    first_step: ClassVar[float] = 0.1
    least: ClassVar[float] = -690.0  # 1e-300: less is no floating-point number
    nearly: ClassVar[float] = 0.5  # weights are 0 or 1 at the end, whatever it takes to get there

    @property
    def target(self) -> Posterior:
        """What positions are of."""
        return self.law.target

    def value(self, vector: Array) -> Array:
        """G."""
        model = self.target.model
        return self.item(model, model.constrain(self.target.unflat(vector)))

    def coordinates(self, vector: Array) -> Array:
        """Property and log prior: g alone is forgotten long before the norm of the weights that it grows with."""
        return jnp.stack([self.value(vector), self.target.model.log_prior(self.target.unflat(vector))])

    def energy(self, vector: Array) -> Array:
        """What lacks to the threshold, as stiff as it may get."""
        return self.stiffness * jnp.maximum(self.threshold - self.value(vector), 0.0)

    def log_base(self, vector: Array) -> Array:
        """Log density of the law."""
        return self.law.log_density(self.target.unflat(vector))

    def seen(self, vector: Array) -> Array:
        """The property, and whether the particle counts."""
        return jnp.stack([self.value(vector), self.law.inside(self.target.unflat(vector)).astype(float)])

    def start(self, key: Array, num_particles: int) -> Array:
        """Draws of the law, given."""
        return self.starts


class Event(NamedTuple):
    """What one replicate says of {g > c}.

    ``variance`` is the relative variance that independent particles would have, ``reached`` the largest g of what counts,
    ``pull`` the kappa that the particles were last moved at.
    """

    probability: float
    variance: float
    reached: float
    pull: float


def event(path: Tilt, run: Ladder) -> Event:
    """P(g > c) among what counts."""
    count = len(run.particles)
    g, inside = run.seen[-1].T
    beyond = (g > float(path.threshold)) & (inside > 0)
    share = float(run.weights @ beyond)
    start = float(run.seen[0][:, 1].mean())
    variance = float(np.sum(1 / run.ess - 1) / count) + (1 - start) / max(start * count, 1)
    if share > 0:
        variance += float(np.sum(run.weights[beyond] ** 2)) / share**2 - float(np.sum(run.weights**2))
    probability = np.exp(run.log_evidence) * share / start if start > 0 else 0.0
    reached = float(np.max(run.seen[..., 0], where=run.seen[..., 1] > 0, initial=-np.inf))
    return Event(float(probability), variance, reached, float(path.stiffness) * float(run.tempering[-2]))


class Pool(NamedTuple):
    """Particles of all stages with weights under the law, their sum being the share that counts."""

    values: np.ndarray
    weights: np.ndarray

    @property
    def median(self) -> float:
        """Of the law."""
        order = np.argsort(self.values)
        return float(self.values[order][np.searchsorted(np.cumsum(self.weights[order]), self.weights.sum() / 2)])

    def beyond(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(g > c) at each threshold, and by how many draws it is supported: (sum w)^2 / sum w^2."""
        order = np.argsort(self.values)
        after = np.searchsorted(self.values[order], thresholds, side="right")
        sums = [np.append(np.cumsum(w[order][::-1])[::-1], 0.0) for w in (self.weights, self.weights**2)]
        mass, square = (s[after] for s in sums)
        return mass / self.weights.sum(), np.divide(mass**2, square, out=np.zeros(len(mass)), where=square > 0)


def pooled(path: Tilt, run: Ladder) -> Pool:
    r"""Particles of every stage as draws of the mixture of all tilts (deterministic mixture, Veach and Guibas 1995).

    .. math:: w_i = \Big(\sum_j e^{-\kappa_j E_i} / Z_j\Big)^{-1}
    """
    kept = run.seen[1:] if len(run.ess) else run.seen  # the particles at an index were moved at the t before it
    t = run.tempering[: len(kept)]
    g, inside = np.moveaxis(kept, -1, 0)
    energy = float(path.stiffness) * np.maximum(float(path.threshold) - g, 0.0)
    steps = np.append(np.diff(t), 0.0)
    log_z = np.append(0.0, np.cumsum(logsumexp(-steps[:, None] * energy, axis=1) - np.log(g.shape[1])))[: len(t)]
    log_mixture = np.asarray(logsumexp(-t[:, None, None] * energy - log_z[:, None, None], axis=0))
    return Pool(g.ravel(), (np.exp(-log_mixture) * inside).ravel() / g.shape[1])


@eqx.filter_jit
def property_at(target: Posterior, particles: Float[Array, "s d"], item: Property) -> Float[Array, " s"]:
    """The property at positions given as vectors."""
    return jax.lax.map(
        lambda v: item(target.model, target.model.constrain(target.unflat(v))), particles, batch_size=256
    )
