"""Microcanonical Langevin Monte Carlo on BlackJAX: motion at constant speed, with and without Metropolis correction."""

from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.mcmc import adjusted_mclmc, hmc, mclmc
from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn
from blackjax.mcmc.integrators import IntegratorState
from jaxtyping import Array

from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .adaptation import AdaptedState, WindowAdapted, window_schedule
from .base import Dynamics, Info, hyperparameter, plain

TRUST = 1.5
"""Width, in log(step size), within which a step's energy error is trusted, as in BlackJAX."""


class StepMemory(NamedTuple):
    """Averages that tune the step size, their age in steps, and the largest size not seen to diverge."""

    error: Array
    weight: Array
    age: Array
    largest: Array

    @classmethod
    def fresh(cls) -> "StepMemory":
        """Nothing is known."""
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), jnp.asarray(jnp.inf))


class MCLMC(Dynamics):
    r"""Microcanonical Langevin Monte Carlo (Robnik, De Luca, Silverstein and Seljak 2023), by BlackJAX. Approximate.

    .. math::
        d\theta = M^{-1/2} u\, dt, \qquad
        du = (1 - u u^T) \big(M^{-1/2} \nabla \log p / (d - 1)\, dt + \sqrt{2 / (L d)}\, dW \big)

    with \|u\| = 1 by the minimal-norm integrator, two gradients a step; the exact flow has the posterior as the law of
    its positions, and the step makes an error. The warm-up makes it small: it chooses the step size at which the variance
    of the energy error is ``energy_variance`` a dimension, using that it grows as the sixth power of the step size, and
    the inverse mass matrix M^{-1} from windows as NUTS does, diagonal. The mean of ``energy_error`` among the recorded
    statistics says what was reached; at the default a quartic's second moment is 1.5 % small (d = 4, measured).

    Parameters
    ----------
    step_size
        The one the warm-up starts from (and the one used, without warm-up), in units of position / M^{-1/2}.
    energy_variance
        Wanted mean of (energy error)^2 / d; 5e-4 is Robnik et al.'s.
    length
        L = length * sqrt(d), in the same units: how far u keeps its direction. 1 is one posterior width once M is tuned.
    """

    law: ClassVar = "approximate"
    adaptive: ClassVar = True
    batched: ClassVar = ("step_size", "energy_variance", "length")
    step_size: Array
    energy_variance: Array
    length: Array

    def __init__(self, step_size: Any = 0.1, energy_variance: Any = 5e-4, length: Any = 1.0):
        self.step_size = hyperparameter("step_size", step_size)
        self.energy_variance = hyperparameter("energy_variance", energy_variance)
        self.length = hyperparameter("length", length)

    def prepare(self, target: Posterior) -> "MCLMC":
        """Refuse one parameter: a direction needs two."""
        return needs_two(self, target)

    def init(self, target: Posterior, key: Array, position: Position) -> AdaptedState:
        """Start untuned, in a random direction."""
        mass_init, _, _ = mass_matrix_adaptation()
        mass_memory = mass_init(target.model.num_parameters)
        state = mclmc.init(cast(Array, position), target.log_density, key)
        return AdaptedState(state, self.step_size, mass_memory.inverse_mass_matrix, StepMemory.fresh(), mass_memory)

    def step(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[AdaptedState, Info]:
        """One step of the integrator between two partial refreshments of the direction."""
        moved, info = self._integrate(target, key, state)
        return state._replace(kernel=moved), info

    def _integrate(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[IntegratorState, Info]:
        dimension = target.model.num_parameters
        tuned = (state.inverse_mass_matrix, self.length * jnp.sqrt(dimension), state.step_size)
        moved, info = mclmc.build_kernel()(key, state.kernel, target.log_density, *cast(Any, tuned))
        return moved, {
            "num_gradients": jnp.asarray(2.0 * target.model.num_rows),
            "diverging": ~jnp.asarray(info.nonans),
            "energy_error": jnp.asarray(info.energy_change) ** 2 / dimension,
        }

    def warmup_schedule(self, num_warmup: int) -> Array:
        """Stan's windows in the first two thirds; the step size has the last third to itself."""
        return window_schedule(num_warmup, final=num_warmup // 3)

    def warmup_step(
        self, target: Posterior, key: Array, state: AdaptedState, stage: Array
    ) -> tuple[AdaptedState, Info]:
        """One step, then the step size from its energy error and, in slow windows, the mass matrix."""
        state, info = self.step(target, key, state)
        slow, window_ends, _ = stage
        _, mass_update, mass_final = mass_matrix_adaptation()
        memory = self._learn(state, info)
        mass_memory = jax.lax.cond(slow, lambda m: mass_update(m, state.position), lambda m: m, state.mass_memory)
        mass_memory = jax.lax.cond(window_ends, mass_final, lambda m: m, mass_memory)
        memory = jax.tree.map(lambda new, old: jnp.where(window_ends, new, old), StepMemory.fresh(), memory)
        wanted = (memory.weight / jnp.where(memory.error > 0, memory.error, 1.0)) ** (1 / 6)
        step_size = jnp.where(memory.error > 0, wanted, state.step_size)
        step_size = jnp.minimum(step_size, memory.largest)
        return AdaptedState(state.kernel, step_size, mass_memory.inverse_mass_matrix, memory, mass_memory), info

    def _learn(self, state: AdaptedState, info: Info) -> StepMemory:
        """Average error / step_size^6 over the later half of the window, steps near the wanted error counting most.

        BlackJAX's predictor, whose memory of 75 steps is too short for errors with heavy tails: it ends four times too high.
        """
        memory, size = state.step_memory, state.step_size
        error = info["energy_error"] / self.energy_variance + 1e-8
        trust = jnp.where(info["diverging"], 0.0, jnp.exp(-0.5 * (jnp.log(error) / (6 * TRUST)) ** 2))
        keep = memory.age / (memory.age + 2)
        return StepMemory(
            keep * memory.error + trust * error / size**6,
            keep * memory.weight + trust,
            memory.age + 1,
            jnp.where(info["diverging"], jnp.minimum(memory.largest, 0.8 * size), memory.largest),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return {name: plain(getattr(self, name)) for name in self.batched}


class AdjustedMCLMC(WindowAdapted):
    r"""Metropolis-adjusted microcanonical Monte Carlo (Robnik, Cohn-Gordon and Seljak 2025), by BlackJAX. Exact.

    The flow of ``MCLMC`` without noise for a random number of steps, about L / step_size, from a random direction, accepted
    or not by its energy error. Step size and diagonal inverse mass matrix are tuned as those of NUTS.

    Parameters
    ----------
    step_size
        The one the warm-up starts from (and the one used, without warm-up), in units of position / M^{-1/2}.
    target_acceptance_rate
        Wanted mean acceptance of the trajectories.
    length
        Mean length of a trajectory: L = length * sqrt(d), in the same units.
    max_num_steps
        Steps of a trajectory at most.
    """

    batched: ClassVar = ("step_size", "target_acceptance_rate", "length")
    gradients_per_step: ClassVar = 2
    length: Array
    max_num_steps: Array

    def __init__(
        self,
        step_size: Any = 0.1,
        target_acceptance_rate: Any = 0.9,
        length: Any = 1.0,
        max_num_steps: int = 1000,
    ):
        super().__init__(step_size, target_acceptance_rate)
        self.length = hyperparameter("length", length)
        self.max_num_steps = hyperparameter("max_num_steps", max_num_steps)

    def prepare(self, target: Posterior) -> "AdjustedMCLMC":
        """Refuse one parameter: a direction needs two."""
        return needs_two(self, target)

    def kernel(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[hmc.HMCState, Any]:
        """One trajectory."""
        key_length, key = jax.random.split(key)
        mean = jnp.clip(
            self.length * jnp.sqrt(target.model.num_parameters) / state.step_size, 1, self.max_num_steps / 2
        )
        number = make_random_trajectory_length_fn(True)(key_length, mean)
        tuned = cast(Any, (state.step_size, (number,), state.inverse_mass_matrix))
        return adjusted_mclmc.build_kernel()(key, state.kernel, target.log_density, *tuned)

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        values = {"length": plain(self.length), "max_num_steps": plain(self.max_num_steps)}
        return {k: v for k, v in super().settings.items() if k != "dense"} | values


def needs_two(dynamics: Any, target: Posterior) -> Any:
    """Return the dynamics if the target has two parameters or more."""
    if target.model.num_parameters < 2:
        raise InputError(
            f"{type(dynamics).__name__} needs at least two parameters, the model has one: use NUTS or Grid"
        )
    return dynamics
