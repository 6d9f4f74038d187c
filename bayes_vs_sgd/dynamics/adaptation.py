"""Stan's window adaptation, by BlackJAX: a step size and an inverse mass matrix for each chain, found in the warm-up."""

from typing import Any, ClassVar, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from blackjax.mcmc import hmc
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain


class AdaptedState(NamedTuple):
    """State of BlackJAX's kernel, the tuned step size and inverse mass matrix, and what the tuning remembers."""

    kernel: Any
    step_size: Array
    inverse_mass_matrix: Array
    step_memory: Any
    mass_memory: Any

    @property
    def position(self) -> Position:
        """Unconstrained position."""
        return cast(Position, self.kernel.position)


class WindowAdapted(Dynamics):
    """A Metropolis-adjusted sampler with a step size, tuned to an acceptance rate, and an inverse mass matrix.

    The step size is tuned by dual averaging (Hoffman and Gelman 2014, section 3.2), the matrix is the covariance of the
    positions in windows that double. Both are kept for the draws, whose law is then exact.

    Parameters
    ----------
    step_size
        The one the warm-up starts from (and the one used, without warm-up).
    target_acceptance_rate
        Wanted mean acceptance.
    dense
        Tune a full inverse mass matrix instead of its diagonal.
    """

    law: ClassVar = "exact"
    adaptive: ClassVar = True
    batched: ClassVar = ("step_size", "target_acceptance_rate")
    gradients_per_step: ClassVar[int] = 1
    """Gradients of the log density in one step of the integrator."""
    step_size: Array
    target_acceptance_rate: Array
    dense: bool = eqx.field(static=True)

    def __init__(self, step_size: Any, target_acceptance_rate: Any, dense: bool = False):
        self.step_size = hyperparameter("step_size", step_size)
        self.target_acceptance_rate = hyperparameter("target_acceptance_rate", target_acceptance_rate)
        if not np.all(np.asarray(self.target_acceptance_rate) < 1):
            raise InputError(f"target_acceptance_rate is {target_acceptance_rate}: it must be between 0 and 1")
        self.dense = dense

    def kernel(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[hmc.HMCState, Any]:
        """BlackJAX's kernel at the step size and inverse mass matrix of the state."""
        raise NotImplementedError

    def statistics(self, info: Any) -> Info:
        """What else to keep of the kernel's info."""
        return {}

    def init(self, target: Posterior, key: Array, position: Position) -> AdaptedState:
        """Start untuned."""
        mass_init, _, _ = mass_matrix_adaptation(not self.dense)
        mass_memory = mass_init(target.model.num_parameters)
        step_init, _, _ = self._step_size_adaptation()
        state = hmc.init(position, target.log_density)
        tuned = (self.step_size, mass_memory.inverse_mass_matrix)
        return AdaptedState(state, *tuned, step_init(self.step_size), mass_memory)

    def step(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[AdaptedState, Info]:
        """One proposal of the kernel, taken or not."""
        moved, info = self.kernel(target, key, state)
        kept = {
            "num_gradients": info.num_integration_steps * float(self.gradients_per_step * target.model.num_rows),
            "diverging": info.is_divergent,
            "acceptance_rate": info.acceptance_rate,
            "energy": info.energy,
            "n_steps": info.num_integration_steps,
        } | self.statistics(info)
        return state._replace(kernel=moved), {k: jnp.asarray(v) for k, v in kept.items()}

    def _step_size_adaptation(self):
        return dual_averaging_adaptation(cast(float, self.target_acceptance_rate))  # an array scalar does too

    def warmup_schedule(self, num_warmup: int) -> Array:
        """Columns: slow window, last of a slow window, last of all."""
        return window_schedule(num_warmup)

    def warmup_step(
        self, target: Posterior, key: Array, state: AdaptedState, stage: Array
    ) -> tuple[AdaptedState, Info]:
        """One step, then Stan's adaptation of the step size and, in slow windows, of the mass matrix."""
        state, info = self.step(target, key, state)
        slow, window_ends, last = stage
        _, mass_update, mass_final = mass_matrix_adaptation(not self.dense)
        step_init, step_update, step_final = self._step_size_adaptation()
        step_memory = step_update(state.step_memory, info["acceptance_rate"])
        mass_memory = jax.lax.cond(slow, lambda m: mass_update(m, state.position), lambda m: m, state.mass_memory)
        step_memory, mass_memory = jax.lax.cond(
            window_ends,
            lambda s, m: (step_init(step_final(s)), mass_final(m)),
            lambda s, m: (s, m),
            step_memory,
            mass_memory,
        )
        step_size = jnp.where(last, step_final(step_memory), jnp.exp(step_memory.log_step_size))
        return AdaptedState(state.kernel, step_size, mass_memory.inverse_mass_matrix, step_memory, mass_memory), info

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        values = {"target_acceptance_rate": plain(self.target_acceptance_rate), "step_size": plain(self.step_size)}
        return values | {"dense": self.dense}


def window_schedule(num_warmup: int, final: int = 50) -> Array:
    """Stan's windows, one row a step: slow window, last of a slow window, last of all. ``final``: steps after the last."""
    schedule = np.asarray(build_schedule(num_warmup, final_buffer_size=final)).astype(bool).reshape(num_warmup, 2)
    return jnp.asarray(np.column_stack([schedule, np.arange(num_warmup) == num_warmup - 1]))
