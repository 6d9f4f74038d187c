r"""Tempered sequential Monte Carlo: particles from a law that is easily drawn from, along base . exp(-t E), t from 0 to 1.

From the prior to the posterior (`FromPrior`) E = n beta L + gamma/2 |theta - theta*|^2 is all of the target that is not prior.

A stage goes as far in t as the effective sample size of the weights allows, resamples, and moves every particle by Hamiltonian
trajectories in coordinates in which the particles have unit covariance (BlackJAX does the parts). They take about a quarter
turn, each particle with a step size of its own; their scale follows the acceptance rate from move to move, since the fibre that
the particles live on gets thinner than their covariance tells.
"""

import abc
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import hmc
from blackjax.smc import adaptive_tempered, resampling, solver
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from .function import Function
from .manifest import digest
from .observables import select
from .parallel import TRACING
from .posterior import Posterior
from .store import remembered

MOST_STAGES = 400
REMEMBERED = 0.2
"""Most correlation of a coordinate over the moves of a stage."""
FEWEST_MOVES, MOST_MOVES = 2, 256
AT_ENDS, WITHIN = ("tempering", "mean", "variance", "seen"), ("acceptance", "memory", "ess")
"""What is known at each t, and of each stage between two."""
DURATION, MOST_LEAPFROGS = 2.1, 8192
"""Time of the longest trajectory, in units in which a quarter turn is pi / 2, and the most leapfrog steps that it may take."""
SETTLING, SHORT = 16, 16
"""Moves of the first stage, and their leapfrog steps: particles are draws there, what has to be found is the step size."""
ACCEPTANCE = 0.9
"""Wanted mean acceptance of trajectories."""
GAIN = 1.5
"""By how much the logarithm of the step size follows the acceptance."""
SHORTEST = 0.5
"""Least share of the step size that a trajectory takes."""
RIDGE = 1e-8
"""Added to the particles' covariance, relative to its trace, so that it has a root."""


class Path(eqx.Module):
    """A base law, where particles start, and the energy E that is tempered in.

    A stage's moves must forget the ``coordinates``: E, or what it depends on. What is ``seen`` of particles is kept.
    """

    first_step: eqx.AbstractClassVar[float]
    """First step size, where the particles' covariance is one."""
    least: ClassVar[float] = -np.inf
    """Log Z below which the path is left unfinished."""
    nearly: ClassVar[float] = 0.8
    """Share of the wanted effective sample size that is enough to go to the end."""

    @property
    @abc.abstractmethod
    def target(self) -> Posterior:
        """What positions are of."""

    @abc.abstractmethod
    def log_base(self, vector: Array) -> Array:
        """Log density of the base law, up to a constant."""

    @abc.abstractmethod
    def energy(self, vector: Array) -> Array:
        """E."""

    @abc.abstractmethod
    def coordinates(self, vector: Array) -> Array:
        """What is to be forgotten."""

    def seen(self, vector: Array) -> Array:
        """What is kept of each particle at each t."""
        return jnp.zeros(0)

    @abc.abstractmethod
    def start(self, key: Array, num_particles: int) -> Array:
        """Draw from the base law."""


class FromPrior(Path):
    """From the prior to a posterior."""

    posterior: Posterior
    first_step: ClassVar[float] = 0.7

    @property
    def target(self) -> Posterior:
        """The posterior."""
        return self.posterior

    def log_base(self, vector: Array) -> Array:
        """Log prior."""
        return self.target.model.log_prior(self.target.unflat(vector))

    def energy(self, vector: Array) -> Array:
        """All of the target that is not prior."""
        target, position = self.target, self.target.unflat(vector)
        beyond = target.log_density(position) - target.model.log_prior(position)
        return target.inverse_temperature * target.model.offset - beyond

    def coordinates(self, vector: Array) -> Array:
        """E."""
        return self.energy(vector)[None]

    def start(self, key: Array, num_particles: int) -> Array:
        """Prior draws."""
        draws = jax.vmap(self.target.model.sample_prior)(jax.random.split(key, num_particles))
        return jax.vmap(lambda p: ravel_pytree(p)[0])(draws)


class Ladder(NamedTuple):
    """One replicate: log Z, the moments of -E at each t, and the particles with their weights at t = 1.

    ``tempering``, ``mean`` and ``variance`` have one entry a stage and one for the end, ``acceptance``, ``memory`` (the
    largest correlation of a coordinate before a stage's moves with that after; 0 in the first, from draws) and ``ess`` (of the
    weights that end it, as a share of the particles) one a stage. ``seen`` (t, particle, number) is what the path keeps of them.
    """

    log_evidence: float
    tempering: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    acceptance: np.ndarray
    memory: np.ndarray
    ess: np.ndarray
    seen: np.ndarray
    num_gradients: float
    particles: Float[np.ndarray, "s d"]
    weights: Float[np.ndarray, " s"]

    @property
    def finished(self) -> bool:
        """Whether t = 1 was reached."""
        return bool(self.tempering[-1] >= 1)


def tempered(
    path: Path,
    key: Array,
    num_particles: int,
    num_moves: int,
    target_ess: float,
    folder: pathlib.Path | None = None,
) -> Ladder:
    """Run one replicate, or read it where the folder holds it already."""
    if folder is None:
        return _replicate(path, key, num_particles, num_moves, target_ess)
    arrays, static = eqx.partition(path, eqx.is_array)
    made_by = [arrays, jax.random.key_data(key), np.array([num_particles, num_moves]), np.array(target_ess)]
    name = f"ladder-{digest(made_by)}-{Function(type(path)).digest[:4]}{static.target.model.program.digest[:8]}.npz"
    return kept(folder / name, lambda: _replicate(path, key, num_particles, num_moves, target_ess))


def kept(file: pathlib.Path, make: Callable[[], Ladder]) -> Ladder:
    """Return the ladder in a file, made and written there if there is none."""
    return Ladder(**remembered(file, lambda: make()._asdict()))


def enough_moves(
    path: Path,
    num_particles: int,
    target_ess: float,
    key: Any,
    folder: pathlib.Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    max_seconds: float = np.inf,
) -> int:
    """Return the least of 2, 4, 8, ... moves after which less than a fifth of each coordinate is remembered in any stage.

    0 where it is not yet found and the next trial would take longer than ``max_seconds``.
    """
    num_moves = FEWEST_MOVES
    while num_moves < MOST_MOVES:
        say(f"tempered particles: are {num_moves} moves a stage enough?")
        begun = time.monotonic()
        if tempered(path, key, num_particles, num_moves, target_ess, folder).memory.max() < REMEMBERED:
            break
        if 2 * (time.monotonic() - begun) > max_seconds:
            return 0
        num_moves *= 2
    return num_moves


def _replicate(path: Path, key: Array, num_particles: int, num_moves: int, target_ess: float) -> Ladder:
    with TRACING:
        run_tempered(path, num_particles, jnp.asarray(0), jnp.asarray(target_ess, float), key)
    run = run_tempered(path, num_particles, jnp.asarray(num_moves), jnp.asarray(target_ess, float), key)
    found = {name: np.asarray(value, float) for name, value in run.items()}
    count = int(found.pop("num_stages"))
    lengths = {name: count + (name in AT_ENDS) for name in (*AT_ENDS, *WITHIN)}
    found |= {name: found[name][:length] for name, length in lengths.items()}
    gradients = float(found.pop("num_gradients")) * num_particles * path.target.model.num_rows
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
def run_tempered(path: Path, num_particles: int, num_moves: Array, target_ess: Array, key: Array) -> dict[str, Array]:
    """Run one replicate in one compiled call: the fields of a ``Ladder``, and ``num_stages``, its length; 0 without moves."""

    def log_likelihood(vector):
        return -path.energy(vector)

    def at(state):
        mean, variance = _moments(log_likelihood, state)
        seen = {"tempering": state.tempering_param, "mean": mean, "variance": variance}
        return seen | {"seen": jax.vmap(path.seen)(state.particles)}

    def stage(carry):
        state, index, log_evidence, step_size, gradients, trace = carry
        root = _root(state.particles, state.weights)
        first = index == 0
        most = jnp.where(first, SHORT, MOST_LEAPFROGS)
        options: Any = {
            "target_ess": target_ess,
            "root_solver": partial(_step, path.nearly),
            "update_strategy": _moves(root, step_size, most),
        }  # BlackJAX's annotations are narrower than it is
        kernel = adaptive_tempered.build_kernel(
            path.log_base, log_likelihood, lambda *_: None, hmc.init, resampling.systematic, **options
        )
        new, info = kernel(jax.random.fold_in(key, index), state, jnp.where(first, SETTLING, num_moves), {})
        step_size, leapfrogs, acceptance, before, after = info.update_info
        memory = jnp.where(first, 0.0, _memory(path.coordinates, before, after))
        seen = at(state) | {"acceptance": acceptance, "memory": memory}
        seen |= {"ess": 1 / (num_particles * jnp.sum(new.weights**2))}
        trace = {name: trace[name].at[index].set(value) for name, value in seen.items()}
        log_evidence += info.log_likelihood_increment
        return new, index + 1, log_evidence, step_size, gradients + leapfrogs, trace

    state = adaptive_tempered.init(path.start(jax.random.fold_in(key, 2**31 - 1), num_particles))
    state = state._replace(tempering_param=jnp.zeros(()))
    trace = {name: jnp.zeros(MOST_STAGES + 1) for name in ("tempering", "mean", "variance", *WITHIN)}
    trace["seen"] = jnp.zeros((MOST_STAGES + 1, *jax.eval_shape(at, state)["seen"].shape))
    state, count, log_evidence, _, gradients, trace = jax.lax.while_loop(
        lambda carry: (
            (num_moves > 0) & (carry[0].tempering_param < 1) & (carry[1] < MOST_STAGES) & (carry[2] > path.least)
        ),
        stage,
        (state, jnp.asarray(0), jnp.zeros(()), jnp.asarray(path.first_step), jnp.zeros(()), trace),
    )
    last = at(state)
    trace = {name: trace[name].at[count].set(last[name]) if name in last else trace[name] for name in trace}
    found = {"log_evidence": log_evidence, "num_stages": count, "num_gradients": gradients}
    return found | trace | {"particles": state.particles, "weights": state.weights}


def _step(nearly: float, log_excess: Any, low: Array, high: Array) -> Array:
    """Step in t at which the effective sample size is as wanted; to the end, where it is little less.

    Else a path to an indicator, whose weights stay as even as the share beyond is, would stop close to its end: at a wall.
    """
    return jax.lax.cond(
        log_excess(high) > jnp.log(nearly),
        lambda: jnp.asarray(high, float),
        lambda: solver.dichotomy(log_excess, low, high),
    )


def _moves(root: Array, step_size: Array, most: Array) -> Any:
    """Update of all particles by a traced number of trajectories; also step size, leapfrog steps, acceptance, and both ends."""

    def strategy(init, log_density, step, num_mcmc_steps, n_particles):
        def whitened(vector):
            return log_density(root @ vector)

        def trajectory(particle_key, state, step_size, length):
            key_move, key_step = jax.random.split(particle_key)
            size = step_size * jax.random.uniform(key_step, minval=SHORTEST)
            tuned: Any = (size, jnp.ones(state.position.shape), length)
            state, info = hmc.build_kernel()(key_move, state, whitened, *tuned)
            return state, info.acceptance_rate

        def update(keys, particles, _):
            def body(index, carry):
                states, step_size, leapfrogs, accepted = carry
                length = jnp.clip(jnp.round(DURATION / step_size), 1, most).astype(int)  # all run in step
                keys_now = jax.vmap(lambda k: jax.random.fold_in(k, index))(keys)
                states, rates = jax.vmap(trajectory, (0, 0, None, None))(keys_now, states, step_size, length)
                rate = jnp.mean(rates)
                step_size = jnp.minimum(step_size * jnp.exp(GAIN * (rate - ACCEPTANCE)), 2.0)
                return states, step_size, leapfrogs + length, accepted + rate

            inwards = jax.vmap(lambda position: solve_triangular(root, position, lower=True))
            states = jax.vmap(lambda position: hmc.init(position, whitened))(inwards(particles))
            carry = (states, step_size, jnp.asarray(0), jnp.zeros(()))
            states, tuned, leapfrogs, accepted = jax.lax.fori_loop(0, num_mcmc_steps, body, carry)
            moved = states.position @ root.T
            return moved, (tuned, leapfrogs, accepted / num_mcmc_steps, particles, moved)

        return update, n_particles

    return strategy


def _moments(log_likelihood: Any, state: Any) -> tuple[Array, Array]:
    """Mean and variance of -E."""
    values = jax.vmap(log_likelihood)(state.particles)
    mean = state.weights @ values
    return mean, state.weights @ (values - mean) ** 2


def _memory(coordinates: Any, before: Array, after: Array) -> Array:
    """Largest correlation of the particles' coordinates before a stage's moves with those after."""

    def seen(particles):
        values = jax.vmap(coordinates)(particles)
        values = values - values.mean(axis=0)
        return values / (jnp.linalg.norm(values, axis=0) + jnp.finfo(values.dtype).tiny)

    return jnp.max(jnp.sum(seen(before) * seen(after), axis=0))


def _root(particles: Float[Array, "s d"], weights: Float[Array, " s"]) -> Float[Array, "d d"]:
    """Root of the covariance of the particles."""
    centered = particles - weights @ particles
    covariance = (centered * weights[:, None]).T @ centered
    size = covariance.shape[0]
    ridge = RIDGE * jnp.trace(covariance) / size + jnp.finfo(covariance.dtype).tiny
    return jnp.linalg.cholesky(covariance + ridge * jnp.eye(size))
