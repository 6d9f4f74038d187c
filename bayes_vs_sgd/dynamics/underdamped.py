"""Underdamped Langevin dynamics with a stochastic gradient: friction that is fixed, or set by a thermostat."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..model import Position
from ..posterior import Posterior
from .base import Info, hyperparameter
from .sgmcmc import StochasticGradientSampler, normal


class SGHMCState(NamedTuple):
    """Position, momentum, place in the epoch."""

    position: Position
    momentum: Position
    epoch: Any


class SGHMC(StochasticGradientSampler):
    r"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014) by a symmetric splitting.

    .. math:: d\theta = v\, dt, \qquad dv = \widehat{\nabla \log p}(\theta)\, dt - \gamma v\, dt + \sqrt{2 \gamma}\, dW

    A step kicks the momentum by the force, drifts by half, lets friction and noise act for the whole step exactly
    (v' = c v + sqrt(1 - c^2) xi, c = exp(-gamma h)) and drifts by half. Its positions are those of BAOAB (Leimkuhler and
    Matthews 2013), whose two half kicks between drifts see the same force, so one gradient a step does: averages of
    functions of the position have bias O(h^2) with the full batch, and on a quadratic none. The law at a fixed time, on the way
    there, has weak error O(h): positions begin half a kick ahead.

    Minibatch noise is heat: on a quadratic of curvature k, with gradient variance S, the variance is exactly

    .. math:: \frac1k \Big(1 + \frac{h^2 S \coth(\gamma h / 2)}{4 - h^2 k}\Big) \approx \frac1k \Big(1 + \frac{h S}{2 \gamma}\Big)

    (Lyapunov equation of (theta, v)). No estimate of S is subtracted from the injected noise. Stable for h^2 k < 4. As an
    optimiser it has learning rate h^2 on -log p and momentum c; SGLD of equal drift has epsilon = h^2 / 2.

    Parameters
    ----------
    step_size
        h, in units of position.
    friction
        gamma, in units of 1/position; twice the root of the curvature is critical.
    batch_size, sampling
        As in ``SGLD``.
    """

    batched: ClassVar = ("step_size", "friction")
    friction: Array

    def __init__(
        self,
        step_size: Any = 0.01,
        friction: Any = 10.0,
        batch_size: int | None = None,
        sampling: str = "replacement",
    ):
        super().__init__(step_size, batch_size, sampling)
        self.friction = hyperparameter("friction", friction)

    def init(self, target: Posterior, key: Array, position: Position) -> SGHMCState:
        """Start at a position, the momentum drawn from its law."""
        key_epoch, key_momentum = jax.random.split(key)
        return SGHMCState(position, normal(target, key_momentum), self.first_epoch(target, key_epoch))

    def step(self, target: Posterior, key: Array, state: SGHMCState) -> tuple[SGHMCState, Info]:
        """Kick, half drift, friction and noise, half drift."""
        key_rows, key_noise = jax.random.split(key)
        force, _, epoch, info = self.force(target, key_rows, state.position, state.epoch)
        momentum = along(state.momentum, self.step_size, force)
        position = along(state.position, self.step_size / 2, momentum)
        keep = jnp.exp(-self.friction * self.step_size)
        scale = jnp.sqrt(-jnp.expm1(-2 * self.friction * self.step_size))
        momentum = jax.tree.map(lambda v, z: keep * v + scale * z, momentum, normal(target, key_noise))
        return SGHMCState(along(position, self.step_size / 2, momentum), momentum, epoch), info


class SGNHTState(NamedTuple):
    """Position, momentum, friction of the thermostat, place in the epoch."""

    position: Position
    momentum: Position
    thermostat: Array
    epoch: Any


class SGNHT(StochasticGradientSampler):
    r"""Stochastic-gradient Nosé-Hoover thermostat (Ding et al. 2014) by a symmetric splitting.

    .. math::
        d\theta = v\, dt, \qquad dv = \widehat{\nabla \log p}(\theta)\, dt - \zeta v\, dt + \sqrt{2 A}\, dW, \qquad
        d\zeta = (\|v\|^2 / d - 1)\, dt

    The friction zeta rises until the kinetic energy is that of temperature 1. Its law is near N(A + h S / 2, 1/d): noise of
    the gradient that is constant and the same in all directions, of variance S, is absorbed, and the positions follow the
    posterior up to O(h^2). On a quadratic of curvature k, but for the fluctuations of zeta, the variance is

    .. math:: \frac1k \Big(1 - \frac{h^2 S \tanh(\zeta h / 2)}{4 - h^2 k}\Big) \approx \frac1k \Big(1 - \frac{h^3 S \zeta}{8}\Big)

    One number cannot absorb more: where S varies between directions or places, the noisy ones stay too hot and the others
    too cold.

    A step is that of ``SGHMC`` with zeta moved by half a step before and after friction and noise (Leimkuhler and Shang
    2016, BADODAB), one gradient a step.

    Parameters
    ----------
    step_size
        h, in units of position.
    diffusion
        A, in units of 1/position: the injected noise, and the friction it takes without minibatch noise.
    batch_size, sampling
        As in ``SGLD``.
    """

    batched: ClassVar = ("step_size", "diffusion")
    diffusion: Array

    def __init__(
        self,
        step_size: Any = 0.01,
        diffusion: Any = 10.0,
        batch_size: int | None = None,
        sampling: str = "replacement",
    ):
        super().__init__(step_size, batch_size, sampling)
        self.diffusion = hyperparameter("diffusion", diffusion)

    def init(self, target: Posterior, key: Array, position: Position) -> SGNHTState:
        """Start at a position, the momentum drawn from its law, the friction at A."""
        key_epoch, key_momentum = jax.random.split(key)
        momentum, epoch = normal(target, key_momentum), self.first_epoch(target, key_epoch)
        return SGNHTState(position, momentum, self.diffusion, epoch)

    def step(self, target: Posterior, key: Array, state: SGNHTState) -> tuple[SGNHTState, Info]:
        """Kick, half drift, half thermostat, friction and noise, half thermostat, half drift."""
        key_rows, key_noise = jax.random.split(key)
        force, _, epoch, info = self.force(target, key_rows, state.position, state.epoch)
        momentum = along(state.momentum, self.step_size, force)
        position = along(state.position, self.step_size / 2, momentum)
        thermostat = self._heated(target, state.thermostat, momentum)
        keep = jnp.exp(-thermostat * self.step_size)
        scale = jnp.sqrt(2 * self.diffusion * relaxation(2 * thermostat, self.step_size))
        momentum = jax.tree.map(lambda v, z: keep * v + scale * z, momentum, normal(target, key_noise))
        thermostat = self._heated(target, thermostat, momentum)
        position = along(position, self.step_size / 2, momentum)
        return SGNHTState(position, momentum, thermostat, epoch), info | {"thermostat": thermostat}

    def _heated(self, target: Posterior, thermostat: Array, momentum: Position) -> Array:
        energy = jnp.mean(target.flat(momentum) ** 2)
        return thermostat + self.step_size / 2 * (energy - 1)


def along(start: Position, length: Array, direction: Position) -> Position:
    """Start + length * direction."""
    return jax.tree.map(lambda x, v: x + length * v, start, direction)


def relaxation(rate: Array, time: Array) -> Array:
    """(1 - exp(-rate time)) / rate, of either sign, and its limit at rate 0."""
    small = jnp.abs(rate * time) < 1e-6
    return jnp.where(small, time, -jnp.expm1(-rate * time) / jnp.where(small, 1.0, rate))
