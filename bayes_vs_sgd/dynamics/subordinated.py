"""Langevin dynamics on a clock that waits: its law solves the time-fractional Fokker-Planck equation of the posterior."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from ..stable import one_sided_stable
from .base import Dynamics, Info, hyperparameter, plain
from .sgmcmc import SGLD, SGLDState


class SubordinatedState(NamedTuple):
    """Position, place in the epoch, and the physical time until the position moves again."""

    position: Position
    epoch: Any
    wait: Array


class SubordinatedLangevin(Dynamics):
    r"""Langevin dynamics on an inverse stable clock (after Hennick and De Baerdemacker 2025).

    .. math::
        d\theta = \nabla \log p(\theta)\, ds + \sqrt2\, dW_s, \qquad
        S_t = \inf\{s : T(s) > t\}, \qquad E\, e^{-u T(s)} = e^{-s u^\alpha}

    The position at physical time t is theta at operational time S_t. Its law solves the time-fractional Fokker-Planck
    equation :math:`\partial_t^\alpha \rho = -\nabla \cdot (\rho \nabla \log p) + \Delta \rho`, with Caputo's derivative. It
    reaches the posterior, up to O(step size) as with ``SGLD``, only as the power t^-alpha (``theory/fractional.py``), and it
    ages: from any start it waits ever longer.

    Inside, each step of ``SGLD`` with the full batch, epsilon of operational time, takes an exact physical time:
    epsilon^(1/alpha) times a one-sided alpha-stable draw. A step of this dynamics advances physical time by ``time_step``
    and makes all the steps of SGLD that fall due, on average time_step^alpha / (Gamma(1 + alpha) epsilon) of them in the
    first, fewer in each later one. With alpha = 1 and equal steps it is SGLD. The clock is late by up to epsilon, so that
    averages at a time are off by O(epsilon). In float32 a wait of 10^5 steps is kept to about 1 %.

    Parameters
    ----------
    alpha
        Index of the clock, in (0, 1].
    step_size
        epsilon, operational, in units of position squared, which are those of physical time to the power alpha.
    time_step
        Physical time of a step; the step size by default.
    max_inner_steps
        Most steps of SGLD in one step. Those beyond are made in the next one; ``info["capped"]`` says that there were any.
    """

    law: ClassVar = "approximate"
    batched: ClassVar = ("langevin", "alpha", "time_step")
    langevin: SGLD
    alpha: Array
    time_step: Array
    max_inner_steps: int = eqx.field(static=True)

    def __init__(self, alpha: Any = 0.7, step_size: Any = 1e-4, time_step: Any = None, max_inner_steps: int = 10_000):
        self.langevin = SGLD(step_size)
        self.alpha = hyperparameter("alpha", alpha)
        if not np.all(np.asarray(self.alpha) <= 1):
            raise InputError(f"alpha is {alpha}: it must be above 0 and at most 1, the ordinary clock")
        self.time_step = hyperparameter("time_step", step_size if time_step is None else time_step)
        if max_inner_steps < 1:
            raise InputError(f"max_inner_steps is {max_inner_steps}: it must be at least 1")
        self.max_inner_steps = int(max_inner_steps)

    def prepare(self, target: Posterior) -> "SubordinatedLangevin":
        """Prepare SGLD."""
        return eqx.tree_at(lambda d: d.langevin, self, self.langevin.prepare(target))

    def init(self, target: Posterior, key: Array, position: Position) -> SubordinatedState:
        """Start at a position, which the clock has just reached."""
        key_langevin, key_wait = jax.random.split(key)
        return SubordinatedState(*self.langevin.init(target, key_langevin, position), self._wait(key_wait))

    def step(self, target: Posterior, key: Array, state: SubordinatedState) -> tuple[SubordinatedState, Info]:
        """Make the steps of SGLD that fall due within the physical time of a step."""
        key_langevin, key_wait = jax.random.split(key)

        def due(loop: tuple[SubordinatedState, Array, Array]) -> Bool[Array, ""]:
            state, count, _ = loop
            return (state.wait <= 0) & (count < self.max_inner_steps)

        def move(loop: tuple[SubordinatedState, Array, Array]) -> tuple[SubordinatedState, Array, Array]:
            state, count, gradients = loop
            inner = SGLDState(state.position, state.epoch)
            inner, info = self.langevin.step(target, jax.random.fold_in(key_langevin, count), inner)
            wait = state.wait + self._wait(jax.random.fold_in(key_wait, count))
            return SubordinatedState(*inner, wait), count + 1, gradients + info["num_gradients"]

        state = state._replace(wait=state.wait - self.time_step)
        state, _, gradients = jax.lax.while_loop(due, move, (state, jnp.zeros((), int), jnp.zeros(())))
        return state, {"num_gradients": gradients, "capped": (state.wait <= 0).astype(float)}

    def _wait(self, key: Array) -> Array:
        """Physical time that the clock takes for one step of SGLD."""
        return self.langevin.step_size ** (1 / self.alpha) * one_sided_stable(key, self.alpha)

    @property
    def step_time(self) -> Array:
        """Physical time of a step."""
        return self.time_step

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        steps = {"step_size": plain(self.langevin.step_size), "time_step": plain(self.time_step)}
        return {"alpha": plain(self.alpha)} | steps | {"max_inner_steps": self.max_inner_steps}
