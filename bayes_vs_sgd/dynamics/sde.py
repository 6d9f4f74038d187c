r"""Stochastic differential equations that stand for SGD, in the sense of Ito, with noise that depends on the position.

One step is as long as a step of the optimiser (time: learning rate x steps), and is made of sub-steps, so that the equation's
own law is found by refining them. The noise is one of ``noise.py``: sub-steps of length h = eta/m draw it ``refined``.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain
from .noise import GaussianNoise, NoisyGradient


class FlowState(NamedTuple):
    """Position."""

    position: Position


class StochasticGradientFlow(Dynamics):
    r"""The stochastic differential equation of SGD.

    .. math:: d\theta = -\nabla L\, dt + \sqrt{\eta}\, \nu(\theta)\, dW, \qquad \nu \nu^T = \mathrm{Cov}\, g_B

    by Euler-Maruyama steps of length eta/m. With one sub-step it is gradient descent with that noise; as m grows its law
    tends to that of the equation, with weak error O(eta/m). ``order=2`` descends L + (eta/4)|grad L|^2 instead, which makes the
    weak distance to SGD at a fixed time O(eta^2) in the place of O(eta) (after Li, Tai and E 2017).

    The noise says which equation it is: ``GaussianNoise`` (default) anisotropic Langevin dynamics, ``IsotropicNoise`` Langevin
    dynamics of the same heat, ``LabelNoise`` the label-noise flow, multiplicative in every layer of a deep network, and
    ``StableNoise`` a Levy-driven one, d theta = -grad L dt + s eta^(1 - 1/alpha) dL_alpha. On a chain of L equal weights with
    whitened inputs the label-noise flow is the equation of a mode, d w = w^(L-1) (s* - w^L) dt + sqrt(c) w^(L-1) dB with c =
    eta s^2 / n, whose rank collapses by ``theory/collapse.py``.

    Parameters
    ----------
    learning_rate
        eta of the optimiser that it stands for; one step takes this time.
    noise
        Noise of one gradient; ``GaussianNoise(8)`` by default.
    substeps
        m.
    order
        1, or 2 with the drift of the modified loss.
    """

    batched: ClassVar = ("learning_rate",)
    learning_rate: Array
    noise: NoisyGradient
    refined: NoisyGradient
    substeps: int = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(
        self, learning_rate: Any = 0.05, noise: NoisyGradient | None = None, substeps: int = 4, order: int = 1
    ):
        self.learning_rate = hyperparameter("learning_rate", learning_rate)
        self.noise = GaussianNoise() if noise is None else noise
        self.substeps = count("substeps", substeps)
        if order not in (1, 2):
            raise InputError(f"order is {order}: it must be 1 or 2")
        self.order = order
        self.refined = self.noise.refined(self.substeps)

    def prepare(self, target: Posterior) -> "StochasticGradientFlow":
        """Check the noise against the model."""
        self.noise.check(target.model)
        return self

    def init(self, target: Posterior, key: Array, position: Position) -> Any:
        """Start at a position."""
        return FlowState(position)

    def step(self, target: Posterior, key: Array, state: Any) -> tuple[Any, Info]:
        """As many Euler-Maruyama steps as there are sub-steps."""

        def substep(index, position):
            gradient, _ = self.refined.estimate(target, jax.random.fold_in(key, index), (), position)
            if self.order == 2:
                bent = gradient_of_square(target, position)
                gradient = jax.tree.map(lambda g, s: g + self.learning_rate / 4 * s, gradient, bent)
            return jax.tree.map(lambda x, g: x - self.learning_rate / self.substeps * g, position, gradient)

        position = jax.lax.fori_loop(0, self.substeps, substep, state.position)
        cost = self.noise.cost(target.model) * self.substeps * self.order
        return FlowState(position), {"num_gradients": jnp.asarray(cost)}

    @property
    def step_time(self) -> Array:
        """The learning rate."""
        return self.learning_rate

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        own = {"learning_rate": plain(self.learning_rate), "substeps": self.substeps, "order": self.order}
        return own | self.noise.settings


class MomentumState(NamedTuple):
    """Position, velocity."""

    position: Position
    velocity: Position


class MomentumFlow(StochasticGradientFlow):
    r"""The underdamped equation of SGD with heavy-ball momentum mu (after Kunin et al. 2021).

    .. math::
        d\theta = v\, dt, \qquad
        \tfrac{\eta (1 + \mu)}{2}\, dv = -(1 - \mu)\, v\, dt - \nabla L\, dt + \sqrt{\eta}\, \nu(\theta)\, dW

    Sub-steps kick the velocity by the noisy gradient, drift by half, apply the friction exactly and drift by half. On a
    quadratic with constant noise that commutes with H its covariance is eta C / (2 B (1 - mu)) H^{-1}: that of the optimiser
    but for the factor 1 - eta h / (2 (1 + mu)). The law at a time has weak error O(eta/m).

    Parameters
    ----------
    learning_rate, noise, substeps
        As in ``StochasticGradientFlow``.
    momentum
        mu in [0, 1).
    """

    batched: ClassVar = ("learning_rate", "momentum")
    momentum: Array

    def __init__(
        self, learning_rate: Any = 0.05, momentum: Any = 0.9, noise: NoisyGradient | None = None, substeps: int = 4
    ):
        super().__init__(learning_rate, noise, substeps)
        self.momentum = hyperparameter("momentum", momentum, strict=False, below=1.0)

    def init(self, target: Posterior, key: Array, position: Position) -> MomentumState:
        """Start at rest, as the optimiser does."""
        return MomentumState(position, jax.tree.map(jnp.zeros_like, position))

    def step(self, target: Posterior, key: Array, state: MomentumState) -> tuple[MomentumState, Info]:
        """Kick, half drift, friction, half drift, as often as there are sub-steps."""
        time = self.learning_rate / self.substeps
        mass = self.learning_rate * (1 + self.momentum) / 2
        keep = jnp.exp(-(1 - self.momentum) / mass * time)

        def substep(index, carry):
            position, velocity = carry
            gradient, _ = self.refined.estimate(target, jax.random.fold_in(key, index), (), position)
            velocity = jax.tree.map(lambda v, g: v - time / mass * g, velocity, gradient)
            position = jax.tree.map(lambda x, v: x + time / 2 * (1 + keep) * v, position, velocity)
            return position, jax.tree.map(lambda v: keep * v, velocity)

        position, velocity = jax.lax.fori_loop(0, self.substeps, substep, (state.position, state.velocity))
        cost = self.noise.cost(target.model) * self.substeps
        return MomentumState(position, velocity), {"num_gradients": jnp.asarray(cost)}

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return super().settings | {"momentum": plain(self.momentum)}


def gradient_of_square(target: Posterior, position: Position) -> Position:
    """Gradient of |grad L|^2, that is 2 H grad L."""
    slope = jax.grad(target.model.loss)
    gradient = slope(position)
    return jax.tree.map(lambda x: 2 * x, jax.jvp(slope, (position,), (gradient,))[1])


def count(name: str, value: int) -> int:
    """Return a whole number that is at least 1."""
    if int(value) != value or value < 1:
        raise InputError(f"{name} is {value}: it must be a whole number >= 1")
    return int(value)
