r"""Tempered sequential Monte Carlo: particles from the prior to the posterior along prior . exp(-t E), t from 0 to 1.

Here E = n beta L + gamma/2 |theta - theta*|^2 is all of the target that is not prior.

A stage goes as far in t as the effective sample size of the weights allows, resamples, and moves every particle by Hamiltonian
trajectories in coordinates in which the particles have unit covariance (BlackJAX does the parts). Lengths and step sizes
are random; their scale follows the acceptance rate from stage to stage, since the fibre that the particles live on gets
thinner than their covariance tells.
"""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import hmc
from blackjax.smc import adaptive_tempered, resampling
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from .manifest import digest
from .observables import select
from .posterior import Posterior
from .store import remembered

MOST_STAGES = 400
LEAPFROGS = 16
"""Most leapfrog steps of a trajectory."""
ACCEPTANCE = 0.8
"""Wanted mean acceptance of trajectories."""
FIRST_STEP, GAIN = 0.7, 1.5
"""First step size, and by how much its logarithm follows the acceptance."""
SHORTEST = 0.3
"""Least share of the step size that a trajectory takes."""
RIDGE = 1e-8
"""Added to the particles' covariance, relative to its trace, so that it has a root."""


class Ladder(NamedTuple):
    """One replicate: log Z, the moments of -E at each t, and the weighted particles at t = 1.

    ``tempering``, ``mean`` and ``variance`` have one entry a stage and one for the end, ``acceptance`` and ``memory`` (the
    correlation of E before a stage's moves with that after) one a stage.
    """

    log_evidence: float
    tempering: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    acceptance: np.ndarray
    memory: np.ndarray
    num_gradients: float
    particles: Float[np.ndarray, "s d"]
    weights: Float[np.ndarray, " s"]

    @property
    def finished(self) -> bool:
        """Whether t = 1 was reached."""
        return bool(self.tempering[-1] >= 1)


def tempered(
    target: Posterior,
    key: Array,
    num_particles: int,
    num_moves: int,
    target_ess: float,
    folder: Path | None = None,
) -> Ladder:
    """Run one replicate, or read it where the folder holds it already."""
    if folder is None:
        return _replicate(target, key, num_particles, num_moves, target_ess)
    arrays, static = eqx.partition(target, eqx.is_array)
    made_by = [arrays, jax.random.key_data(key), np.array([num_particles, num_moves]), np.array(target_ess)]
    path = folder / f"ladder-{digest(made_by)}-{static.model.program.digest[:8]}.npz"
    found = remembered(path, lambda: _replicate(target, key, num_particles, num_moves, target_ess)._asdict())
    return Ladder(**found)


def _replicate(target: Posterior, key: Array, num_particles: int, num_moves: int, target_ess: float) -> Ladder:
    run = run_tempered(target, num_particles, jnp.asarray(num_moves), jnp.asarray(target_ess, float), key)
    found = {name: np.asarray(value, float) for name, value in run.items()}
    count = int(found.pop("num_stages"))
    lengths = {"tempering": count + 1, "mean": count + 1, "variance": count + 1, "acceptance": count, "memory": count}
    found |= {name: found[name][:length] for name, length in lengths.items()}
    gradients = float(found.pop("num_gradients")) * num_particles * target.model.num_rows
    return Ladder(float(found.pop("log_evidence")), num_gradients=gradients, **found)


def at_particles(target: Posterior, particles: Array | np.ndarray, name: str) -> np.ndarray:
    """A scalar observable at each particle (s, d)."""
    found = _observe(target, jnp.asarray(particles, float), select(target.model, [name])[name])
    return np.asarray(found, float)


@eqx.filter_jit
def _observe(target: Posterior, particles: Array, item: Any) -> Array:
    def value(vector):
        return item(target.model, target.model.constrain(target.unflat(vector)))

    return jax.lax.map(value, particles, batch_size=64)


@eqx.filter_jit
def run_tempered(
    target: Posterior, num_particles: int, num_moves: Array, target_ess: Array, key: Array
) -> dict[str, Array]:
    """Run one replicate in one compiled call: the fields of a ``Ladder``, and ``num_stages``, its length."""
    model, beta = target.model, target.inverse_temperature

    def log_prior(vector):
        return model.log_prior(target.unflat(vector))

    def log_likelihood(vector):
        position = target.unflat(vector)
        return target.log_density(position) - model.log_prior(position) - beta * model.offset

    def stage(carry):
        state, index, log_evidence, step_size, gradients, trace = carry
        mean, variance = _moments(log_likelihood, state)
        root = _root(state.particles, state.weights)
        lengths = jax.random.fold_in(key, 2 * index)
        options: Any = {
            "target_ess": target_ess,
            "update_strategy": _moves(root, step_size, lengths),
        }  # BlackJAX's annotations are narrower than it is
        kernel = adaptive_tempered.build_kernel(
            log_prior, log_likelihood, lambda *_: None, hmc.init, resampling.systematic, **options
        )
        new, info = kernel(jax.random.fold_in(key, 2 * index + 1), state, num_moves, {})
        acceptance, before, after = info.update_info
        acceptance = jnp.mean(acceptance)
        seen = {"tempering": state.tempering_param, "mean": mean, "variance": variance, "acceptance": acceptance}
        seen |= {"memory": _memory(log_likelihood, before, after)}
        trace = {name: trace[name].at[index].set(value) for name, value in seen.items()}
        step_size = jnp.minimum(step_size * jnp.exp(GAIN * (acceptance - ACCEPTANCE)), 2.0)
        gradients += num_moves * (1 + LEAPFROGS) / 2
        return new, index + 1, log_evidence + info.log_likelihood_increment, step_size, gradients, trace

    draws = jax.vmap(model.sample_prior)(jax.random.split(jax.random.fold_in(key, 2**31 - 1), num_particles))
    state = adaptive_tempered.init(jax.vmap(lambda p: ravel_pytree(p)[0])(draws))
    state = state._replace(tempering_param=jnp.zeros(()))
    trace = {name: jnp.zeros(MOST_STAGES + 1) for name in ("tempering", "mean", "variance", "acceptance", "memory")}
    state, count, log_evidence, _, gradients, trace = jax.lax.while_loop(
        lambda carry: (carry[0].tempering_param < 1) & (carry[1] < MOST_STAGES),
        stage,
        (state, jnp.asarray(0), jnp.zeros(()), jnp.asarray(FIRST_STEP), jnp.zeros(()), trace),
    )
    mean, variance = _moments(log_likelihood, state)
    last = {"tempering": state.tempering_param, "mean": mean, "variance": variance}
    trace = {name: trace[name].at[count].set(last[name]) if name in last else trace[name] for name in trace}
    found = {"log_evidence": log_evidence, "num_stages": count, "num_gradients": gradients}
    return found | trace | {"particles": state.particles, "weights": state.weights}


def _moves(root: Array, step_size: Array, key: Array) -> Any:
    """BlackJAX's ``update_and_take_last`` with a traced number of trajectories; also acceptance, and both ends."""

    def strategy(init, log_density, step, num_mcmc_steps, n_particles):
        def whitened(vector):
            return log_density(root @ vector)

        def one(particle_key, position, _):
            def body(index, carry):
                state, accepted = carry
                key_length, key_move = jax.random.fold_in(key, index), jax.random.fold_in(particle_key, index)
                key_move, key_step = jax.random.split(key_move)
                size = step_size * jax.random.uniform(key_step, minval=SHORTEST)
                length = jax.random.randint(key_length, (), 1, LEAPFROGS + 1)  # one for all particles: they run in step
                tuned: Any = (size, jnp.ones(position.shape), length)
                state, info = hmc.build_kernel()(key_move, state, whitened, *tuned)
                return state, accepted + info.acceptance_rate

            state = hmc.init(solve_triangular(root, position, lower=True), whitened)
            state, accepted = jax.lax.fori_loop(0, num_mcmc_steps, body, (state, jnp.zeros(())))
            moved = root @ state.position
            return moved, (accepted / num_mcmc_steps, position, moved)

        return jax.vmap(one), n_particles

    return strategy


def _moments(log_likelihood: Any, state: Any) -> tuple[Array, Array]:
    """Mean and variance of -E."""
    values = jax.vmap(log_likelihood)(state.particles)
    mean = state.weights @ values
    return mean, state.weights @ (values - mean) ** 2


def _memory(log_likelihood: Any, before: Array, after: Array) -> Array:
    """Correlation of the particles' E before a stage's moves with that after."""

    def seen(particles):
        values = jax.vmap(log_likelihood)(particles)
        values = values - values.mean()
        return values / (jnp.linalg.norm(values) + jnp.finfo(values.dtype).tiny)

    return seen(before) @ seen(after)


def _root(particles: Float[Array, "s d"], weights: Float[Array, " s"]) -> Float[Array, "d d"]:
    """Root of the covariance of the particles."""
    centered = particles - weights @ particles
    covariance = (centered * weights[:, None]).T @ centered
    size = covariance.shape[0]
    ridge = RIDGE * jnp.trace(covariance) / size + jnp.finfo(covariance.dtype).tiny
    return jnp.linalg.cholesky(covariance + ridge * jnp.eye(size))
