"""Markov chain Monte Carlo on BlackJAX: NUTS with window adaptation, and any BlackJAX algorithm."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from blackjax.mcmc import hmc, nuts
from jaxtyping import Array

from ..errors import InputError
from ..function import Function
from ..model import Position
from ..posterior import Posterior
from .base import Dynamics, Info, hyperparameter, plain


class NUTSState(NamedTuple):
    """Hamiltonian state, the tuned step size and inverse mass matrix, and what the tuning remembers."""

    hamiltonian: hmc.HMCState
    step_size: Array
    inverse_mass_matrix: Array
    step_memory: Any
    mass_memory: Any

    @property
    def position(self) -> Position:
        """Unconstrained position."""
        return cast(Position, self.hamiltonian.position)


class NUTS(Dynamics):
    """No-U-turn sampler (Hoffman and Gelman 2014) with Stan's window adaptation, both by BlackJAX. Exact.

    Each chain tunes its own step size and inverse mass matrix in the warm-up, and keeps them for the draws.

    Parameters
    ----------
    step_size
        The one the warm-up starts from (and the one used, without warm-up).
    target_acceptance_rate
        Wanted mean acceptance of the trajectories.
    max_num_doublings
        A trajectory has at most 2 to this power leapfrog steps.
    dense
        Tune a full inverse mass matrix instead of its diagonal.
    """

    law: ClassVar = "exact"
    adaptive: ClassVar = True
    batched: ClassVar = ("step_size", "target_acceptance_rate")
    step_size: Array
    target_acceptance_rate: Array
    max_num_doublings: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

    def __init__(
        self,
        step_size: Any = 0.1,
        target_acceptance_rate: Any = 0.8,
        max_num_doublings: int = 10,
        dense: bool = False,
    ):
        self.step_size = hyperparameter("step_size", step_size)
        self.target_acceptance_rate = hyperparameter("target_acceptance_rate", target_acceptance_rate)
        if not np.all(np.asarray(self.target_acceptance_rate) < 1):
            raise InputError(f"target_acceptance_rate is {target_acceptance_rate}: it must be between 0 and 1")
        self.max_num_doublings = max_num_doublings
        self.dense = dense

    def init(self, target: Posterior, key: Array, position: Position) -> NUTSState:
        """Start untuned."""
        mass_init, _, _ = mass_matrix_adaptation(not self.dense)
        mass_memory = mass_init(target.model.num_parameters)
        step_init, _, _ = self._step_size_adaptation()
        state = hmc.init(position, target.log_density)
        tuned = (self.step_size, mass_memory.inverse_mass_matrix)
        return NUTSState(state, *tuned, step_init(self.step_size), mass_memory)

    def step(self, target: Posterior, key: Array, state: NUTSState) -> tuple[NUTSState, Info]:
        """One trajectory."""
        hamiltonian, info = nuts.build_kernel()(
            key,
            state.hamiltonian,
            target.log_density,
            cast(float, state.step_size),
            state.inverse_mass_matrix,
            self.max_num_doublings,
        )
        kept = {
            "num_gradients": info.num_integration_steps * float(target.model.num_rows),
            "diverging": info.is_divergent,
            "acceptance_rate": info.acceptance_rate,
            "energy": info.energy,
            "n_steps": info.num_integration_steps,
            "reached_max_treedepth": info.num_trajectory_expansions >= self.max_num_doublings,
        }
        return state._replace(hamiltonian=hamiltonian), {k: jnp.asarray(v) for k, v in kept.items()}

    def _step_size_adaptation(self):
        return dual_averaging_adaptation(cast(float, self.target_acceptance_rate))  # an array scalar does too

    def warmup_schedule(self, num_warmup: int) -> Array:
        """Columns: slow window, last of a slow window, last of all."""
        schedule = np.asarray(build_schedule(num_warmup)).astype(bool).reshape(num_warmup, 2)
        return jnp.asarray(np.column_stack([schedule, np.arange(num_warmup) == num_warmup - 1]))

    def warmup_step(self, target: Posterior, key: Array, state: NUTSState, stage: Array) -> tuple[NUTSState, Info]:
        """One trajectory, then Stan's adaptation of the step size and, in slow windows, of the mass matrix."""
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
        return NUTSState(state.hamiltonian, step_size, mass_memory.inverse_mass_matrix, step_memory, mass_memory), info

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        fixed = {"max_num_doublings": self.max_num_doublings, "dense": self.dense}
        return {
            "target_acceptance_rate": plain(self.target_acceptance_rate),
            "step_size": plain(self.step_size),
        } | fixed


class BlackJAX(Dynamics):
    """Any BlackJAX sampling algorithm; made by ``from_blackjax``."""

    law: ClassVar = "approximate"
    algorithm: Function = eqx.field(static=True)

    def init(self, target: Posterior, key: Array, position: Position) -> Any:
        """Initialise the algorithm, with a key if it wants one."""
        algorithm = self.algorithm(target.log_density)
        try:
            return algorithm.init(position)
        except TypeError:
            return algorithm.init(position, key)

    def step(self, target: Posterior, key: Array, state: Any) -> tuple[Any, Info]:
        """One step; the scalar fields of BlackJAX's info are kept."""
        state, info = self.algorithm(target.log_density).step(key, state)
        fields = {k: v for k, v in getattr(info, "_asdict", dict)().items() if jnp.ndim(v) == 0 and v is not None}
        fields = {("diverging" if k == "is_divergent" else k): v for k, v in fields.items() if not isinstance(v, tuple)}
        steps = fields.get("num_integration_steps", 1)
        return state, fields | {"num_gradients": jnp.asarray(steps * float(target.model.num_rows))}

    @property
    def settings(self) -> dict[str, Any]:
        """The maker's name and a digest of its code."""
        return {"algorithm": repr(self.algorithm), "digest": self.algorithm.digest}


def from_blackjax(algorithm: Callable) -> BlackJAX:
    """Make a dynamics of a BlackJAX algorithm, as in ``from_blackjax(lambda p: blackjax.mala(p, step_size=1e-3))``.

    The argument is given the target's log density and returns the algorithm. Two equal lambdas compile once.
    """
    return BlackJAX(Function(algorithm))
