r"""Simulation-based calibration: does a sampler sample the posterior of a model? Ranks of the truth among draws.

.. math:: \theta_0 \sim \pi, \quad y \sim p(y \mid \theta_0), \quad \theta_1, \dots, \theta_L \sim p(\theta \mid y)

If the last law is right, the rank of :math:`f(\theta_0, y)` among the :math:`f(\theta_l, y)` is uniform on 0 ... L, for every
function f (Talts et al. 2018, arXiv 1804.06788); one that depends on the data, such as the log likelihood, sees what those of
the parameters cannot (Modrak et al. 2023). Here f is each primary observable, of which the loss is one. At an inverse temperature
beta the noise of the observations has the variance sigma^2 / beta, which makes their likelihood the tempered one up to a
constant; that holds for normal noise only.

Data are leaves of the target, so that all simulations are one compiled call.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from scipy import stats

from ..dynamics.base import Dynamics
from ..dynamics.gibbs import LinearNetworkGibbs
from ..dynamics.grid import Grid
from ..errors import InputError
from ..model import Position
from ..observables import HashableDict
from ..posterior import Posterior
from ..tempered import FromPrior, run_tempered
from .compare import primary
from .verdict import holm

NUM_BINS = 16
AT_ONCE = 256
"""Simulations side by side: chains of one batch wait for the slowest."""


class Chain(eqx.Module):
    """One chain a simulation, started from the prior: warm-up, then draws that are so many steps apart."""

    dynamics: Dynamics
    num_warmup: int = eqx.field(static=True)
    thinning: int = eqx.field(static=True)
    num_draws: int = eqx.field(static=True, default=63)

    def __call__(self, target: Posterior, key: Array) -> Position:
        """Draws (draw, ...) of the posterior."""
        key_start, key_init, key_warmup, key_draws = jax.random.split(key, 4)
        dynamics = on_data(self.dynamics, target)

        def tune(state, inputs):
            return dynamics.warmup_step(target, inputs[0], state, inputs[1])[0], None

        def draw(state, key):
            def move(index, state):
                return dynamics.step(target, jax.random.fold_in(key, index), state)[0]

            state = jax.lax.fori_loop(0, self.thinning, move, state)
            return state, state.position

        state = dynamics.init(target, key_init, target.model.sample_prior(key_start))
        with jax.ensure_compile_time_eval():
            schedule = dynamics.warmup_schedule(self.num_warmup)
        state, _ = jax.lax.scan(tune, state, (jax.random.split(key_warmup, self.num_warmup), schedule))
        return jax.lax.scan(draw, state, jax.random.split(key_draws, self.num_draws))[1]


class Particles(eqx.Module):
    """Tempered sequential Monte Carlo, of whose particles a few are drawn by weight."""

    num_particles: int = eqx.field(static=True, default=512)
    num_moves: int = eqx.field(static=True, default=8)
    num_draws: int = eqx.field(static=True, default=63)

    def __call__(self, target: Posterior, key: Array) -> Position:
        """Draws (draw, ...) of the posterior."""
        key_run, key_draws = jax.random.split(key)
        run = run_tempered(
            FromPrior(target), self.num_particles, jnp.asarray(self.num_moves), jnp.asarray(0.5), key_run
        )
        chosen = jax.random.choice(key_draws, self.num_particles, (self.num_draws,), p=run["weights"])
        return jax.vmap(target.unflat)(run["particles"][chosen])


@dataclass(frozen=True)
class Calibration:
    """Ranks of each observable (simulation,), the number of draws among which they were found, and their p-values."""

    ranks: dict[str, np.ndarray]
    num_draws: int

    def counts(self, name: str, num_bins: int = NUM_BINS) -> np.ndarray:
        """How many ranks fall into bins of equal probability; their number must divide num_draws + 1."""
        return np.bincount(self.ranks[name] * num_bins // (self.num_draws + 1), minlength=num_bins)

    @property
    def p_values(self) -> dict[str, float]:
        """Of the chi-square test of uniform ranks."""
        return {name: float(stats.chisquare(self.counts(name)).pvalue) for name in self.ranks}

    @property
    def p(self) -> float:
        """The smallest p-value, by Holm over the observables."""
        return float(holm(list(self.p_values.values())).min())


def calibrate(target: Posterior, sampler: Chain | Particles, key: int, num_simulations: int) -> Calibration:
    """Simulate, sample and rank.

    Parameters
    ----------
    target
        Of its data only the inputs matter; also its inverse temperature.
    sampler
        A ``Chain`` of a dynamics, or ``Particles``.
    key
        Seed.
    num_simulations
        Number of data sets.

    Raises
    ------
    InputError
        If the program does not have one argument for one observed site.
    """
    target = uncompressed(target)
    if isinstance(sampler, Chain) and not isinstance(sampler.dynamics, Grid):
        sampler = eqx.tree_at(lambda s: s.dynamics, sampler, sampler.dynamics.prepare(target))
    keys = jax.random.split(jax.random.key(key), (3, num_simulations))
    truths, observed = _joint(target, keys[0])
    if isinstance(sampler, Chain) and isinstance(sampler.dynamics, Grid):
        found = []
        for y, one in zip(observed, keys[1], strict=True):
            given = observing(target, y)
            found.append(_sampled(target, eqx.tree_at(_dynamics, sampler, sampler.dynamics.prepare(given)), y, one))
        draws = jax.tree.map(lambda *x: jnp.stack(x), *found)
    else:
        draws = _all_sampled(target, sampler, observed, keys[1])
    ranks = _ranks(target, HashableDict(primary(target)), truths, observed, draws, keys[2])
    return Calibration({name: np.asarray(x) for name, x in ranks.items()}, sampler.num_draws)


def uncompressed(target: Posterior) -> Posterior:
    """The target without the compressed data, which belong to one set of observations."""
    facts = target.model.facts
    if len(facts["targets"]) != 1 or len(facts["observed"]) != 1:
        raise InputError(
            "data can be simulated where one observed site is one argument of the program, None by default"
        )
    if target.model.compressed is None:
        return target
    return eqx.tree_at(lambda t: (t.model.compressed, t.model.offset), target, (None, jnp.zeros(())))


def redraw(target: Posterior, key: Array, position: Position) -> Array:
    """Observations drawn at a position, with the noise of the tempered likelihood; see the module."""
    model = target.model
    (name,), (site,) = model.facts["targets"], model.facts["observed"]
    program = handlers.seed(handlers.substitute(model.program, data=model.constrain(position)), key)
    trace = handlers.trace(program).get_trace(**{k: v for k, v in model.data.items() if k != name})
    mean = trace[site]["fn"].mean
    return mean + (trace[site]["value"] - mean) / jnp.sqrt(target.inverse_temperature)


def observing(target: Posterior, observed: Array) -> Posterior:
    """The target with other observations."""
    (name,) = target.model.facts["targets"]
    return eqx.tree_at(lambda t: t.model.data[name], target, observed)


def on_data(dynamics: Dynamics, target: Posterior) -> Dynamics:
    """A prepared dynamics, with what it knows of the observations anew."""
    if not isinstance(dynamics, LinearNetworkGibbs):
        return dynamics
    x, y = (target.model.data[k].reshape(target.model.num_examples, -1) for k in (dynamics.inputs, dynamics.outputs))
    return eqx.tree_at(lambda s: s.cross_moment, dynamics, y.T @ x)


def _dynamics(sampler: Chain) -> Dynamics:
    return sampler.dynamics


@eqx.filter_jit
def _joint(target: Posterior, keys: Array) -> tuple[Position, Array]:
    def one(key):
        key_prior, key_data = jax.random.split(key)
        position = target.model.sample_prior(key_prior)
        return position, redraw(target, key_data, position)

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _sampled(target: Posterior, sampler: Any, observed: Array, key: Array) -> Position:
    return sampler(observing(target, observed), key)


@eqx.filter_jit
def _all_sampled(target: Posterior, sampler: Any, observed: Array, keys: Array) -> Position:
    return jax.lax.map(lambda xs: sampler(observing(target, xs[0]), xs[1]), (observed, keys), batch_size=AT_ONCE)


@eqx.filter_jit
def _ranks(
    target: Posterior, chosen: HashableDict, truths: Position, observed: Array, draws: Position, keys: Array
) -> dict[str, Array]:
    def one(truth, y, found, key):
        model = observing(target, y).model
        ranks = {}
        for index, (name, item) in enumerate(chosen.items()):
            at = item(model, model.constrain(truth))
            values = jax.vmap(lambda position, f=item: f(model, model.constrain(position)))(found)
            ties = jax.random.randint(jax.random.fold_in(key, index), (), 0, jnp.sum(values == at) + 1)
            ranks[name] = jnp.sum(values < at) + ties
        return ranks

    return jax.vmap(one)(truths, observed, draws, keys)
