r"""Stochastic differential equations that stand for RMSprop and Adam (after Malladi, Lyu, Panigrahi and Arora 2022).

They hold where the gradient's noise is larger than its mean: the second moment V then follows the noise alone. Counted in
steps of the optimiser, k, with Cov nu = C/B,

.. math::
    d\theta = -\eta\, \frac{\nabla L\, dk + \nu\, dW_k}{\sqrt V + \epsilon}, \qquad
    dV = (1 - \beta_2)\,(\mathrm{diag}\, C / B - V)\, dk,

and for Adam the numerator is averaged first, dm = (1 - beta_1)(grad L dk + nu dW_k - m dk). In the paper time is k eta^2.
Batches of kB follow the same equation k times as fast with learning rate sqrt(k) eta, 1 - beta multiplied by k and epsilon
divided by sqrt(k): the square-root scaling rule, ``scaled``.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import example_gradients
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain
from .noise import GaussianNoise
from .sde import count


class AdaptiveState(NamedTuple):
    """Position, averaged gradient, second moment, and the steps taken."""

    position: Position
    average: Position
    second_moment: Position
    steps: Array


class AdamFlow(Dynamics):
    """The equation of Adam; bias-corrected as Adam is.

    V starts at its stationary value where the chain starts, so only the average of the gradients is corrected for its start.
    With m Euler-Maruyama sub-steps the law at a time has weak error O(1/m); at the very start, where the correction divides
    an average of white noise by how little of it there is, variances come nearer a little more slowly.

    Parameters
    ----------
    learning_rate
        eta.
    batch_size
        B.
    b1, b2
        Decays in [0, 1) of the averages of the gradient and of its square.
    eps
        epsilon, in units of the gradient.
    substeps
        Euler-Maruyama sub-steps a step.
    """

    batched: ClassVar = ("learning_rate", "b1", "b2", "eps")
    averages: ClassVar = True
    learning_rate: Array
    b1: Array
    b2: Array
    eps: Array
    noise: GaussianNoise
    refined: GaussianNoise
    substeps: int = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Any = 0.01,
        batch_size: Any = 8,
        b1: Any = 0.9,
        b2: Any = 0.999,
        eps: Any = 1e-8,
        substeps: int = 4,
    ):
        self.learning_rate = hyperparameter("learning_rate", learning_rate)
        self.b1 = hyperparameter("b1", b1, strict=False, below=1.0)
        self.b2 = hyperparameter("b2", b2, strict=False, below=1.0)
        self.eps = hyperparameter("eps", eps, strict=False)
        self.noise = GaussianNoise(batch_size)
        self.substeps = count("substeps", substeps)
        self.refined = self.noise.refined(self.substeps)

    def prepare(self, target: Posterior) -> "AdamFlow":
        """Check the noise against the model."""
        self.noise.check(target.model)
        return self

    def init(self, target: Posterior, key: Array, position: Position) -> AdaptiveState:
        """Start at a position, with V at rest there."""
        zeros = jax.tree.map(jnp.zeros_like, position)
        moment = self._noise_variance(target, example_gradients(target.model, position))
        return AdaptiveState(position, zeros, moment, jnp.zeros(()))

    def step(self, target: Posterior, key: Array, state: AdaptiveState) -> tuple[AdaptiveState, Info]:
        """Euler-Maruyama sub-steps."""
        part = 1 / self.substeps

        def substep(index, state):
            each = example_gradients(target.model, state.position)
            weights = self.refined.weights(jax.random.fold_in(key, index), target.model.num_examples)
            gradient, variance = target.unflat(weights @ each), self._noise_variance(target, each)
            steps = state.steps + part
            average, correction = gradient, 1.0
            if self.averages:
                rate = (1 - self.b1) * part
                average = jax.tree.map(lambda m, g: m + rate * (g - m), state.average, gradient)
                correction = 1 - (1 - rate) ** (steps * self.substeps)

            def moved(x, m, v):
                return x - self.learning_rate * part * m / correction / (jnp.sqrt(v) + self.eps)

            position = jax.tree.map(moved, state.position, average, state.second_moment)
            moment = jax.tree.map(lambda v, s: v + (1 - self.b2) * part * (s - v), state.second_moment, variance)
            return AdaptiveState(position, average, moment, steps)

        state = jax.lax.fori_loop(0, self.substeps, substep, state)
        cost = self.noise.cost(target.model) * self.substeps
        return state, {"num_gradients": jnp.asarray(cost)}

    def _noise_variance(self, target: Posterior, each: Float[Array, "n d"]) -> Position:
        """Diagonal of C/B, from the gradients of the examples."""
        return target.unflat(jnp.var(each, axis=0) / self.noise.batch_size)

    def scaled(self, factor: float) -> "AdamFlow":
        """Return the same equation for batches of ``factor`` B: one step of it is ``factor`` steps of this one."""
        return type(self)(**self._scaled(factor))

    def _scaled(self, factor: float) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate * factor**0.5,
            "batch_size": self.noise.batch_size * factor,
            "b1": 1 - factor * (1 - self.b1),
            "b2": 1 - factor * (1 - self.b2),
            "eps": self.eps / factor**0.5,
            "substeps": self.substeps,
        }

    @property
    def step_time(self) -> Array:
        """The learning rate, as for the optimiser."""
        return self.learning_rate

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return {name: plain(getattr(self, name)) for name in self.batched} | {
            "batch_size": plain(self.noise.batch_size),
            "substeps": self.substeps,
        }


class RMSpropFlow(AdamFlow):
    """The equation of RMSprop: that of Adam without the average of the gradients.

    Parameters
    ----------
    learning_rate, batch_size, eps, substeps
        As in ``AdamFlow``.
    decay
        beta_2 in [0, 1).
    second_moment
        V of every weight at the start; by default at rest, at the variance of the noise there.
    """

    batched: ClassVar = ("learning_rate", "b2", "eps")
    averages: ClassVar = False
    second_moment: Array | None

    def __init__(
        self,
        learning_rate: Any = 0.01,
        batch_size: Any = 8,
        decay: Any = 0.9,
        eps: Any = 1e-8,
        substeps: int = 4,
        second_moment: float | None = None,
    ):
        super().__init__(learning_rate, batch_size, 0.0, decay, eps, substeps)
        self.second_moment = None if second_moment is None else hyperparameter("second_moment", second_moment)

    def init(self, target: Posterior, key: Array, position: Position) -> AdaptiveState:
        """Start at a position, with the given V or V at rest there."""
        state = super().init(target, key, position)
        if (moment := self.second_moment) is None:
            return state
        return state._replace(second_moment=jax.tree.map(lambda x: jnp.full_like(x, moment), position))

    def _scaled(self, factor: float) -> dict[str, Any]:
        found = super()._scaled(factor)
        del found["b1"]
        moment = None if self.second_moment is None else self.second_moment / factor
        return found | {"decay": found.pop("b2"), "second_moment": moment}

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return super().settings | ({} if self.second_moment is None else {"second_moment": plain(self.second_moment)})
