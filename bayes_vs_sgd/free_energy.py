r"""Free energy: minus the log evidence of a model, by tempered sequential Monte Carlo.

.. math:: \log Z(\beta) = \log \int \varphi(\theta) e^{-n \beta L(\theta)} d\theta

Particles go from the prior to the posterior along exp(-t n beta L), t from 0 to 1. Each stage goes as far as the effective
sample size of the weights allows, resamples, and moves every particle by a random walk whose steps have the particles' own
covariance (BlackJAX). What decides the error is how well the moves mix: with too few the answer looks as sure and is
wrong. So every answer is made with k moves and with 2k, each replicated, and it is a warning where they part.

How much of the likelihood is remembered over the moves of a stage says how many are needed: unless given, k is doubled until
it is under a fifth. Thermodynamic integration of E_t[n beta L] over the same stages is a second estimate, of energies, not of
weights; its error contains that of the quadrature, by leaving out every other stage.
"""

from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import random_walk
from blackjax.smc import adaptive_tempered, resampling
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy import stats

from .diagnostics import finite_or_none
from .errors import InputError
from .model import Model
from .posterior import Posterior

STEP = 2.38
"""Over sqrt(d), the step of a random walk in units of the posterior's standard deviations (Roberts, Gelman and Gilks 1997)."""
MOST_STAGES = 400
RIDGE = 1e-8
"""Added to the particles' covariance, relative to its trace, so that it has a root."""
APART, WIDE = 3.0, 0.5
"""Standard errors by which two answers part; nats by which replicates may spread."""
REMEMBERED = 0.2
"""Most correlation of the likelihood over the moves of a stage."""
FEWEST_MOVES, MOST_MOVES = 5, 640


@dataclass(frozen=True)
class FreeEnergy:
    """Log evidence with what says whether to believe it.

    Parameters
    ----------
    log_evidence, standard_error, interval
        Mean over the replicates with 2k moves, its standard error and 95 % interval (Student's t).
    replicates
        Of ``moves`` (k) and ``twice_the_moves`` (2k): log evidences, one a replicate.
    thermodynamic_integration
        ``value`` and ``standard_error``, from the replicates with 2k moves.
    num_stages, acceptance_rate, memory
        Largest number of stages, lowest mean acceptance rate of a stage, and the largest correlation of the likelihood before
        a stage's moves with that after, of any replicate with 2k moves.
    warnings
        Reasons not to believe it; ``trusted`` if there are none.
    """

    log_evidence: float
    standard_error: float
    interval: tuple[float, float]
    replicates: dict[str, list[float]]
    thermodynamic_integration: dict[str, float]
    num_stages: int
    acceptance_rate: float
    memory: float
    num_likelihoods: float
    settings: dict[str, Any]
    trusted: bool
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return finite_or_none(asdict(self))


def free_energy(
    model: Model,
    inverse_temperature: float = 1.0,
    *,
    key: int = 0,
    num_particles: int = 2000,
    num_moves: int | None = None,
    num_replicates: int = 4,
    target_ess: float = 0.8,
) -> FreeEnergy:
    """Estimate log Z of a model's tempered posterior.

    Parameters
    ----------
    model
        Its prior is taken as it is: normalised, if the program has no ``numpyro.factor`` outside the plate.
    inverse_temperature
        beta; at 1, Z is the evidence.
    key
        Seed.
    num_particles
        Of each replicate.
    num_moves
        k: random-walk moves of each particle a stage; the answer is made with 2k. Found by a pilot run by default.
    num_replicates
        Independent runs with k and with 2k moves.
    target_ess
        Effective share of the particles after a stage.

    Raises
    ------
    InputError
        If a setting cannot be.
    """
    for name, value, least in (
        ("num_particles", num_particles, 10),
        ("num_moves", 1 if num_moves is None else num_moves, 1),
        ("num_replicates", num_replicates, 2),
    ):
        if value < least:
            raise InputError(f"{name} is {value}: it must be at least {least}")
    if not 0 < target_ess < 1:
        raise InputError(f"target_ess is {target_ess}: it must be between 0 and 1")
    if not (np.isfinite(inverse_temperature) and inverse_temperature > 0):
        raise InputError(f"inverse_temperature is {inverse_temperature}: it must be finite and > 0")
    target, found = Posterior(model, inverse_temperature), {}
    seed = jax.random.key(key)
    if num_moves is None:
        num_moves = _enough_moves(target, num_particles, target_ess, jax.random.fold_in(seed, 2))
    for index, (name, moves) in enumerate((("moves", num_moves), ("twice_the_moves", 2 * num_moves))):
        keys = jax.random.split(jax.random.fold_in(seed, index), num_replicates)
        found[name] = [_replicate(target, num_particles, moves, target_ess, k) for k in keys]
    logs = {name: [float(run["log_evidence"]) for run in runs] for name, runs in found.items()}
    best = found["twice_the_moves"]
    value, error = _mean_and_error(logs["twice_the_moves"])
    half = float(stats.t.ppf(0.975, num_replicates - 1)) * error
    fine, coarse = ([thermodynamic_integral(run, every) for run in best] for every in (1, 2))
    integral, integral_error = _mean_and_error(fine)
    integral_error = float(np.hypot(integral_error, integral - np.mean(coarse)))
    stages = {name: [len(run["memory"]) for run in runs] for name, runs in found.items()}
    num_stages = max(max(counts) for counts in stages.values())
    settings = {"inverse_temperature": inverse_temperature, "num_particles": num_particles, "num_moves": num_moves}
    settings |= {"num_replicates": num_replicates, "target_ess": target_ess, "seed": key}
    memory = max(float(run["memory"].max()) for run in best)
    doubts = _doubts(logs, (value, error), (integral, integral_error), num_stages, memory)
    return FreeEnergy(
        value,
        error,
        (value - half, value + half),
        logs,
        {"value": integral, "standard_error": integral_error},
        num_stages,
        min(float(run["acceptance"].min()) for run in best),
        memory,
        float(num_particles * num_moves * (sum(stages["moves"]) + 2 * sum(stages["twice_the_moves"]))),
        settings,
        not doubts,
        doubts,
    )


def _enough_moves(target: Posterior, num_particles: int, target_ess: float, key: Array) -> int:
    """Return the least of 5, 10, 20, ... moves after which less than a fifth of the likelihood is remembered in every stage."""
    num_moves = FEWEST_MOVES
    while num_moves < MOST_MOVES:
        if _replicate(target, num_particles, num_moves, target_ess, key)["memory"].max() < REMEMBERED:
            break
        num_moves *= 2
    return num_moves


def _replicate(
    target: Posterior, num_particles: int, num_moves: int, target_ess: float, key: Array
) -> dict[str, np.ndarray]:
    """One run: log evidence, and its traces cut to the stages it took; those of moments also have the end, t = 1."""
    run = _tempered(target, num_particles, jnp.asarray(num_moves), jnp.asarray(target_ess, float), key)
    found = {name: np.asarray(value, float) for name, value in run.items()}
    count = int(found.pop("num_stages"))
    lengths = {"tempering": count + 1, "mean": count + 1, "variance": count + 1, "acceptance": count, "memory": count}
    return found | {name: found[name][:length] for name, length in lengths.items()}


def thermodynamic_integral(run: dict[str, np.ndarray], every: int = 1) -> float:
    """Integral of E_t[-n beta L] over t by the trapezoid rule with derivatives, Var_t, at its ends (Friel et al. 2014).

    Of the stages, only every so many are used, counted from the last.
    """
    used = np.unique([0, *range(len(run["tempering"]) - 1, -1, -every)])
    t, mean, variance = (run[name][used] for name in ("tempering", "mean", "variance"))
    widths = np.diff(t)
    return float(np.sum(widths * (mean[1:] + mean[:-1]) / 2 - widths**2 * np.diff(variance) / 12))


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _doubts(
    logs: dict[str, list[float]],
    best: tuple[float, float],
    integral: tuple[float, float],
    num_stages: int,
    memory: float,
) -> list[str]:
    """Reasons not to believe the answer."""
    if not np.isfinite([*logs["moves"], *logs["twice_the_moves"]]).all():
        return ["a replicate is not finite: the likelihood may vanish on all of the prior's draws"]
    found = []
    fewer, fewer_error = _mean_and_error(logs["moves"])
    value, error = best
    if abs(fewer - value) > APART * np.hypot(fewer_error, error):
        found.append(
            f"k moves give {fewer:.3f} ± {fewer_error:.2g}, 2k give {value:.3f} ± {error:.2g}: give more moves"
        )
    spread, wide = (np.std(logs[name], ddof=1) for name in ("twice_the_moves", "moves"))
    if memory > REMEMBERED:
        found.append(f"2k moves still remember {memory:.2f} of the likelihood: give more moves")
    if max(spread, wide) > WIDE:
        found.append(f"replicates spread by {max(spread, wide):.2g} nats: give more moves or particles")
    if abs(integral[0] - value) > APART * np.hypot(integral[1], error):
        found.append(f"thermodynamic integration gives {integral[0]:.3f} ± {integral[1]:.2g}")
    if num_stages >= MOST_STAGES:
        found.append(f"not at the posterior after {MOST_STAGES} stages: give a smaller target_ess")
    return found


@eqx.filter_jit
def _tempered(
    target: Posterior, num_particles: int, num_moves: Array, target_ess: Array, key: Array
) -> dict[str, Array]:
    """One replicate: log evidence, and of each stage its t, acceptance, and mean and variance of -n beta L there."""
    model, beta = target.model, target.inverse_temperature

    def log_prior(vector):
        return model.log_prior(target.unflat(vector))

    def log_likelihood(vector):
        return -beta * (model.total_loss(target.unflat(vector)) + model.offset)

    def move(key, state, log_density, root):
        return random_walk.build_additive_step()(
            key, state, log_density, lambda k, x: root @ jax.random.normal(k, x.shape, x.dtype)
        )

    def moves(init, log_density, step, num_mcmc_steps, n_particles):
        """BlackJAX's ``update_and_take_last`` with a traced number of moves, and their mean acceptance."""

        def one(key, position, parameters):
            def body(index, carry):
                state, accepted = carry
                state, info = step(jax.random.fold_in(key, index), state, log_density, **parameters)
                return state, accepted + info.acceptance_rate

            state, accepted = jax.lax.fori_loop(0, num_mcmc_steps, body, (init(position, log_density), jnp.zeros(())))
            return state.position, (accepted / num_mcmc_steps, position, state.position)

        return jax.vmap(one), n_particles

    options: Any = {
        "target_ess": target_ess,
        "update_strategy": moves,
    }  # BlackJAX's annotations are narrower than it is
    kernel = adaptive_tempered.build_kernel(
        log_prior, log_likelihood, move, random_walk.init, resampling.systematic, **options
    )

    def moments(state):
        values = jax.vmap(log_likelihood)(state.particles)
        mean = state.weights @ values
        return mean, state.weights @ (values - mean) ** 2

    def stage(carry):
        state, index, log_evidence, trace = carry
        mean, variance = moments(state)
        root = _root(state.particles, state.weights)
        new, info = kernel(jax.random.fold_in(key, index + 1), state, num_moves, {"root": root[None]})
        seen = {"tempering": state.tempering_param, "mean": mean, "variance": variance}
        acceptance, before, after = info.update_info
        seen |= {"acceptance": jnp.mean(acceptance), "memory": _memory(log_likelihood, before, after)}
        trace = {name: trace[name].at[index].set(value) for name, value in seen.items()}
        return new, index + 1, log_evidence + info.log_likelihood_increment, trace

    draws = jax.vmap(model.sample_prior)(jax.random.split(jax.random.fold_in(key, 0), num_particles))
    state = adaptive_tempered.init(jax.vmap(lambda p: ravel_pytree(p)[0])(draws))
    state = state._replace(tempering_param=jnp.zeros(()))
    trace = {name: jnp.zeros(MOST_STAGES + 1) for name in ("tempering", "mean", "variance", "acceptance", "memory")}
    state, count, log_evidence, trace = jax.lax.while_loop(
        lambda carry: (carry[0].tempering_param < 1) & (carry[1] < MOST_STAGES),
        stage,
        (state, jnp.asarray(0), jnp.zeros(()), trace),
    )
    mean, variance = moments(state)
    last = {"tempering": state.tempering_param, "mean": mean, "variance": variance}
    trace = {name: trace[name].at[count].set(last[name]) if name in last else trace[name] for name in trace}
    return {"log_evidence": log_evidence, "num_stages": count, **trace}


def _memory(log_likelihood: Any, before: Array, after: Array) -> Array:
    """Correlation of the particles' likelihood before a stage's moves with that after."""

    def seen(particles):
        values = jax.vmap(log_likelihood)(particles)
        values = values - values.mean()
        return values / (jnp.linalg.norm(values) + jnp.finfo(values.dtype).tiny)

    return seen(before) @ seen(after)


def _root(particles: Float[Array, "s d"], weights: Float[Array, " s"]) -> Float[Array, "d d"]:
    """Root of the covariance of the particles, times the random walk's step."""
    centered = particles - weights @ particles
    covariance = (centered * weights[:, None]).T @ centered
    size = covariance.shape[0]
    ridge = RIDGE * jnp.trace(covariance) / size + jnp.finfo(covariance.dtype).tiny
    return STEP / jnp.sqrt(size) * jnp.linalg.cholesky(covariance + ridge * jnp.eye(size))
