r"""Hamiltonian Monte Carlo on a sublevel set: the prior on {L <= L* + epsilon}, which no state ever leaves.

The momentum is kicked by the prior's gradient where a step ends inside and reflected at the level set of L where it ends outside,

.. math:: p' = p - 2\, \frac{\nabla L \cdot M^{-1} p}{\nabla L \cdot M^{-1} \nabla L}\, \nabla L,

both between two half steps of the position. Each of these maps keeps volumes and is undone by turning the momentum around, so
that Metropolis' test of the whole trajectory, which refuses every end outside, leaves the prior on the set invariant
(Betancourt 2011, AIP Conf. Proc. 1305, 165).
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc, metrics
from jaxtyping import Array

from ..curvature import reference_point
from ..errors import InputError
from ..model import Position
from ..posterior import Posterior
from .adaptation import AdaptedState, WindowAdapted
from .base import Info, hyperparameter, plain

MOST_DESCENTS = 10_000
"""Steps of gradient descent in which a start comes into the set; a chain that has not by then is lost."""
STILL = 1e-3
"""Of a step's length: a trajectory that ends nearer to its start has not moved, and does not count as accepted in the warm-up."""


class Move(NamedTuple):
    """What is known of one trajectory."""

    num_integration_steps: Array
    is_divergent: Array
    acceptance_rate: Array
    energy: Array
    inside: Array


class SublevelHMC(WindowAdapted):
    """The prior on {L <= L* + epsilon}, by trajectories that are reflected at its boundary. The target's beta plays no part.

    Starts outside descend the loss until they are inside. A chain stays in its component of the set, but for a step that is
    longer than the gap to another: whether all were found no sampler can know, and R-hat over chains from many prior draws says
    whether those that were found differ.

    Parameters
    ----------
    excess_loss
        epsilon > 0; one value a chain makes a ladder of sets.
    step_size
        The one the warm-up starts from (and the one used, without warm-up).
    target_acceptance_rate
        Wanted mean acceptance.
    num_leapfrogs
        Most steps of a trajectory; their number is uniform.
    dense
        Tune a full inverse mass matrix instead of its diagonal.
    """

    law: ClassVar = "none"
    batched: ClassVar = (*WindowAdapted.batched, "excess_loss")
    excess_loss: Array
    least_loss: Array
    num_leapfrogs: int = eqx.field(static=True)

    def __init__(
        self,
        excess_loss: Any,
        step_size: Any = 0.1,
        target_acceptance_rate: Any = 0.8,
        num_leapfrogs: int = 64,
        dense: bool = False,
    ):
        super().__init__(step_size, target_acceptance_rate, dense)
        if num_leapfrogs < 1:
            raise InputError(f"num_leapfrogs is {num_leapfrogs}: it must be at least 1")
        self.excess_loss = hyperparameter("excess_loss", excess_loss)
        self.least_loss, self.num_leapfrogs = jnp.asarray(jnp.nan), int(num_leapfrogs)

    def prepare(self, target: Posterior) -> "SublevelHMC":
        """Find L*, the loss at the empirical minimum."""
        least = jnp.asarray(reference_point(target.model, target.center).loss, float)
        return eqx.tree_at(lambda s: s.least_loss, self, least)

    @property
    def level(self) -> Array:
        """Largest loss in the set."""
        return self.least_loss + self.excess_loss

    def init(self, target: Posterior, key: Array, position: Position) -> AdaptedState:
        """Start untuned, inside."""
        state = super().init(target, key, self.descend(target, position))
        return state._replace(kernel=hmc.init(state.position, target.log_regularizer))

    def descend(self, target: Posterior, position: Position) -> Position:
        """Follow the gradient into the set, with steps that double after each that goes down and halve after others."""

        def outside(carry: Any) -> Array:
            vector, _, count = carry
            return (target.model.loss(target.unflat(vector)) > self.level) & (count < MOST_DESCENTS)

        def descent(carry: Any) -> Any:
            vector, rate, count = carry
            before, slope = jax.value_and_grad(lambda v: target.model.loss(target.unflat(v)))(vector)
            tried = vector - rate * slope
            down = target.model.loss(target.unflat(tried)) < before
            return jnp.where(down, tried, vector), rate * jnp.where(down, 2.0, 0.5), count + 1

        found, _, _ = jax.lax.while_loop(outside, descent, (target.flat(position), jnp.asarray(0.1), 0))
        inside = target.model.loss(target.unflat(found)) <= self.level
        return target.unflat(jnp.where(inside, found, jnp.nan))

    def kernel(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[hmc.HMCState, Move]:
        """One trajectory."""
        key_momentum, key_length, key_test = jax.random.split(key, 3)
        metric = metrics.default_metric(state.inverse_mass_matrix)
        start = target.flat(state.position)
        momentum = jnp.asarray(metric.sample_momentum(key_momentum, start))
        length = jax.random.randint(key_length, (), 1, self.num_leapfrogs + 1)
        end, turned = self.trajectory(target, state, start, momentum, length)
        inside = target.model.loss(target.unflat(end)) <= self.level
        moved = hmc.init(target.unflat(end), target.log_regularizer)
        gain = (
            moved.logdensity - state.kernel.logdensity + metric.kinetic_energy(momentum) - metric.kinetic_energy(turned)
        )
        chance = jnp.where(inside & jnp.isfinite(gain), jnp.exp(jnp.minimum(self.log_ratio(gain), 0.0)), 0.0)
        accepted = jax.random.uniform(key_test) < chance
        kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), moved, state.kernel)
        step = state.step_size * jnp.linalg.norm(velocity(state, momentum))
        # Steps far too long turn back at once, and are always accepted.
        still = jnp.linalg.norm(end - start) < STILL * step
        rate = jnp.where(still, 0.0, chance)
        return kept, Move(length, ~jnp.isfinite(gain), rate, -kept.logdensity, inside)

    def log_ratio(self, gain: Array) -> Array:
        """Logarithm of the acceptance ratio, by the gain of -H."""
        return gain

    def trajectory(
        self, target: Posterior, state: AdaptedState, start: Array, momentum: Array, length: Array
    ) -> tuple[Array, Array]:
        """Half steps of the position around kicks and reflections."""
        step, speed = state.step_size, partial(velocity, state)

        def turn(vector: Array, momentum: Array) -> Array:
            loss, slope = jax.value_and_grad(lambda v: target.model.loss(target.unflat(v)))(vector)
            pull = jax.grad(lambda v: target.log_regularizer(target.unflat(v)))(vector)
            reflected = momentum - 2 * (slope @ speed(momentum)) / (slope @ speed(slope)) * slope
            return jnp.where(loss <= self.level, momentum + step * pull, reflected)

        def move(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            vector, momentum = carry
            vector = vector + step / 2 * speed(momentum)
            momentum = turn(vector, momentum)
            return vector + step / 2 * speed(momentum), momentum

        return jax.lax.fori_loop(0, length, move, (start, momentum))

    def statistics(self, info: Any) -> Info:
        """Whether the trajectory ended inside."""
        return {"inside": info.inside}

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        found = {"excess_loss": plain(self.excess_loss), "num_leapfrogs": self.num_leapfrogs}
        return super().settings | found


def velocity(state: AdaptedState, momentum: Array) -> Array:
    """M^-1 p."""
    inverse_mass = state.inverse_mass_matrix
    return inverse_mass * momentum if inverse_mass.ndim == 1 else inverse_mass @ momentum
