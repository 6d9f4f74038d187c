r"""At what temperature is an ensemble? Stein's identity, no reference draws needed.

Under a law proportional to exp(log r - n beta L), any smooth vector field g satisfies

.. math:: E[\mathrm{div}\, g + g \cdot \nabla \log r] = n \beta\, E[g \cdot \nabla L],

so every g has its own estimate of n beta, and they agree only if the law is tempered. ``g = grad L`` pools all
directions; ``g = (phi - c) grad phi`` measures along an observable phi with value c at the optimum.
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

from ..curvature import gradient_noise
from ..diagnostics import ratio_of_means
from ..dynamics.base import Dynamics
from ..dynamics.gradients import Shuffled
from ..dynamics.optimizers import Optimizer
from ..model import Position
from ..observables import HashableDict, Observable
from ..posterior import Posterior

EXACT_TRACE = 256
NUM_PROBES = 8


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


def stein_terms(
    target: Posterior, positions: dict[str, np.ndarray], modes: Mapping[str, Observable] | None = None
) -> dict[str, SteinTerms]:
    """Stein terms of an ensemble along grad L (under the name "loss") and along some observables.

    Parameters
    ----------
    target
        Model, prior and localisation; its inverse temperature does not matter.
    positions
        Unconstrained positions with a leading axis of independent seeds.
    modes
        Scalar observables with a value at the model's optimum.
    """
    found = _stein_terms(target, jax.tree.map(jnp.asarray, positions), HashableDict(modes or {}))
    return {name: SteinTerms(*(np.asarray(x, float) for x in pair)) for name, pair in found.items()}


@eqx.filter_jit
def _stein_terms(target: Posterior, positions: Position, modes: HashableDict) -> dict[str, tuple[Array, Array]]:
    model = target.model

    def loss(vector):
        return model.loss(target.unflat(vector))

    def observed(phi, vector):
        return phi(model, model.constrain(target.unflat(vector)))

    def terms(position):
        vector = target.flat(position)
        grad_loss = jax.grad(loss)(vector)
        grad_prior = jax.grad(lambda v: target.log_regularizer(target.unflat(v)))(vector)
        found = {"loss": (_trace(loss, vector) + grad_loss @ grad_prior, grad_loss @ grad_loss)}
        for name, phi in modes.items():
            assert model.optimum is not None  # modes are measured from the optimum
            along = partial(observed, phi)
            gap = along(vector) - along(target.flat(model.unconstrain(model.optimum)))
            slope = jax.grad(along)(vector)
            divergence = slope @ slope + gap * _trace(along, vector)
            found[name] = (divergence + gap * slope @ grad_prior, gap * slope @ grad_loss)
        return found

    return jax.lax.map(terms, positions, batch_size=256)


def _trace(function: Callable, vector: Array) -> Array:
    """Trace of the Hessian: exact for few parameters, else Hutchinson's with fixed probes."""
    gradient = jax.grad(function)
    if vector.size <= EXACT_TRACE:
        return jnp.trace(jax.jacfwd(gradient)(vector))
    probes = jax.random.rademacher(jax.random.key(0), (NUM_PROBES, vector.size), vector.dtype)
    return jnp.mean(jax.vmap(lambda z: z @ jax.jvp(gradient, (vector,), (z,))[1])(probes))


def reference_scale(dynamics: Dynamics, target: Posterior, position: Position) -> float | None:
    """Return n beta that theory gives, or None where it gives none.

    A dynamics that targets a law has the target's own. SGD has 1/T0, T0 = (eta / 2B) tr C / rank C at the optimum (over 1 -
    momentum; times (n - B)/(n - 1) in shuffled epochs), which is a temperature only where C is isotropic and constant,
    and else a reference scale. Adaptive rules have none.
    """
    if dynamics.law != "none":
        return float(target.scale)
    if not isinstance(dynamics, Optimizer) or repr(dynamics.factory) != "sgd" or dynamics.batch_size is None:
        return None
    rate, momentum = dynamics.hyperparameters["learning_rate"], dynamics.hyperparameters.get("momentum", 0.0)
    temperature = float(rate) * gradient_noise(target.model, position).per_direction / (2 * dynamics.batch_size)
    temperature /= 1 - float(momentum)
    if isinstance(dynamics.gradient, Shuffled):
        num_examples = target.model.num_examples
        temperature *= (num_examples - dynamics.batch_size) / max(num_examples - 1, 1)
    return 1 / temperature if temperature > 0 else None
