r"""Rare events of a law that can only be simulated, by splitting: runs that come near are copied and made again.

The end of a run is a function of its start and of the random words of its steps. Levels c_1 < c_2 < ... < c rise so that a
share of the runs ends above each; those are copied, and moved by a Markov chain that keeps the law of (start, words) given
g > c_k at the end:

.. math:: P(g > c) = P(g > c_1) \prod_k P(g > c_{k+1} \mid g > c_k)

A move has a size b. The start becomes x' = m + sqrt(1 - b^2) (x - m) + b s xi, with mean m and standard deviation s of the
initial law's coordinates; each word is drawn anew with probability b; the run is made again, and stays if it ends above the level
(and by Metropolis' rule, where the initial law is not normal). After Au and Beck (Probab. Eng. Mech. 16 (2001) 263) and Cerou and
Guyader (Stoch. Anal. Appl. 25 (2007) 417): as the levels are chosen by the runs themselves, the bias is O(1/runs).
"""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from ..dynamics import Dynamics
from ..layout import chain_axis
from ..manifest import digest
from ..parallel import TRACING
from ..posterior import Posterior
from ..start import START
from ..tempered import Ladder, kept
from .properties import Property
from .tilt import Event, Pool

KEPT = 0.25
"""Share of the runs above the next level."""
FEWEST_MOVES = 4
"""Of runs at a level, tried first."""
LEAST = 1e-15
"""No event is looked for that is less probable."""
NUM_WORDS = 64
"""Random words of a run; each draws the randomness of as many steps in a row."""
ACCEPTANCE, GAIN = 0.3, 1.0
"""Wanted share of moves that are accepted, and by how much the logarithm of their size follows it."""


class Population(NamedTuple):
    """Runs: starts and words, and what they lead to, positions at the end and g there (minus infinity where they are lost)."""

    starts: Float[Array, "s d"]
    words: UInt32[Array, "s w"]
    ends: Float[Array, "s d"]
    values: Float[Array, " s"]


class Runs(eqx.Module):
    """Training from prior draws that are scaled: its law at the end, and an event g > c."""

    item: Property = eqx.field(static=True)
    dynamics: Dynamics
    target: Posterior
    initial_scale: Array
    num_steps: Array
    threshold: Array

    def fresh(self, key: Array, count: int) -> Population:
        """Independent runs."""
        key_start, key_words = jax.random.split(key)
        draws = jax.vmap(self.target.model.sample_prior)(jax.random.split(key_start, count))
        starts = self.initial_scale * jax.vmap(self.target.flat)(draws)
        return self.made(starts, jax.random.bits(key_words, (count, NUM_WORDS)))

    def log_start(self, start: Array) -> Array:
        """Log density of the initial law, up to a constant."""
        return self.target.model.log_prior(self.target.unflat(start / self.initial_scale))

    def made(self, starts: Array, words: Array) -> Population:
        """Run from starts by words."""
        axis = chain_axis(*starts.shape)

        def first(start, own):
            return self.dynamics.init(self.target, _key(own[0], START), self.target.unflat(start))

        def step(state, word, index):
            return self.dynamics.step(self.target, _key(word, index), state)[0]

        def advance(index, states):
            now = words[:, index * NUM_WORDS // self.num_steps]
            return jax.vmap(step, (axis, 0, None), axis)(states, now, index)

        def end(state):
            value = self.item(self.target.model, self.target.model.constrain(state.position))
            return self.target.flat(state.position), jnp.where(jnp.isfinite(value), value, -jnp.inf)

        states = jax.vmap(first, out_axes=axis)(starts, words)
        states = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), states)
        states = jax.lax.fori_loop(0, self.num_steps, advance, states)
        return Population(starts, words, *jax.vmap(end, in_axes=axis)(states))


def _key(word: Array, index: Any) -> Array:
    return jax.random.fold_in(jax.random.key(word), index)


def split(runs: Runs, key: Array, count: int, num_moves: int, folder: Path | None = None) -> Ladder:
    """One replicate, or what the folder holds of it.

    ``tempering`` are the levels, ``ess`` the shares above them. What copies remember is no bias: it shows in the replicates'
    spread.
    """
    if folder is None:
        return _split(runs, key, count, num_moves)
    arrays, static = eqx.partition(runs, eqx.is_array)
    made_by = [arrays, jax.random.key_data(key), np.array([count, num_moves])]
    names = digest(made_by), static.target.model.program.digest[:8], digest(repr(static.dynamics))[:4]
    return kept(folder / f"runs-{'-'.join(names)}.npz", lambda: _split(runs, key, count, num_moves))


def _split(runs: Runs, key: Array, count: int, num_moves: int) -> Ladder:
    threshold, log_probability, size, gradients = float(runs.threshold), 0.0, 0.5, count
    levels, trace, seen = [-np.inf], [], []
    with TRACING:
        _compile(runs, key, count)
    now = _fresh(runs, jax.random.fold_in(key, 0), count)
    center, width = now.starts.mean(axis=0), now.starts.std(axis=0)
    while True:
        values = np.asarray(now.values, float)
        seen.append(np.stack([values, np.ones(count)], axis=1))
        level = next_level(values)
        if level >= threshold or log_probability < np.log(LEAST):
            break
        above = np.flatnonzero(values > level)
        log_probability += np.log(len(above) / count)
        copies = jnp.asarray(np.resize(above, count))
        numbers = (jnp.asarray(x, float) for x in (level, size, num_moves))
        now = jax.tree.map(lambda x, rows=copies: x[rows], now)
        now, size, rate = _moved(runs, now, center, width, *numbers, jax.random.fold_in(key, len(levels)))
        trace.append((float(rate), len(above) / count))
        levels.append(level)
        gradients += count * num_moves
    acceptance, shares = np.array(trace).reshape(-1, 2).T
    return Ladder(
        log_evidence=log_probability,
        tempering=np.array(levels),
        mean=np.zeros(len(levels)),
        variance=np.zeros(len(levels)),
        acceptance=acceptance,
        memory=np.zeros(0),
        ess=shares,
        seen=np.array(seen),
        num_gradients=gradients * float(runs.num_steps) * float(_cost(runs)),
        particles=np.asarray(now.ends, float),
        weights=np.full(count, 1 / count),
    )


def next_level(values: np.ndarray) -> float:
    """Level that a quarter is above; where the largest value is that of more, the one below it; infinite if there is none."""
    level, below = np.sort(values)[-round(KEPT * len(values)) - 1], values[values < values.max()]
    return float(level if level < values.max() else below.max(initial=-np.inf) if len(below) else np.inf)


def _compile(runs: Runs, key: Array, count: int) -> None:
    """Call what a replicate calls, for one step and no move."""
    short = eqx.tree_at(lambda runs: runs.num_steps, runs, jnp.ones_like(runs.num_steps))
    now, number = _fresh(short, key, count), jnp.zeros((), float)
    _moved(short, now, now.starts[0], now.starts[0], number, number, number, key)
    _cost(short)


@eqx.filter_jit
def _fresh(runs: Runs, key: Array, count: int) -> Population:
    return runs.fresh(key, count)


@eqx.filter_jit
def _moved(
    runs: Runs, begun: Population, center: Array, width: Array, level: Array, size: Array, num_moves: Array, key: Array
) -> tuple[Population, Array, Array]:
    """Move all runs; also the size of moves that fits, and the share that was accepted."""

    def log_ratio(start):
        return runs.log_start(start) + 0.5 * jnp.sum(((start - center) / width) ** 2)

    def move(index, carry):
        now, size, accepted = carry
        keys = jax.random.split(jax.random.fold_in(key, index), 5)
        shape, wide = now.starts.shape, len(now.starts)
        b = size * jax.random.uniform(keys[0], (wide, 1))
        away = jnp.sqrt(1 - b**2) * (now.starts - center) + b * width * jax.random.normal(keys[1], shape)
        anew = jax.random.uniform(keys[2], now.words.shape) < b
        words = jnp.where(anew, jax.random.bits(keys[3], now.words.shape), now.words)
        tried = runs.made(center + away, words)
        odds = jax.vmap(log_ratio)(tried.starts) - jax.vmap(log_ratio)(now.starts)
        taken = (tried.values > level) & (jnp.log(jax.random.uniform(keys[4], (wide,))) < odds)
        now = jax.tree.map(lambda a, b: jnp.where(taken.reshape(-1, *(1,) * (a.ndim - 1)), a, b), tried, now)
        size = jnp.clip(size * jnp.exp(GAIN * (taken.mean() - ACCEPTANCE)), 1e-3, 1.0)
        return now, size, accepted + taken.mean()

    now, size, accepted = jax.lax.fori_loop(0, num_moves.astype(int), move, (begun, size, jnp.zeros(())))
    return now, size, accepted / num_moves


@eqx.filter_jit
def _cost(runs: Runs) -> Array:
    """Gradients of one example's loss in a step."""
    position = runs.target.unflat(jnp.zeros(runs.target.model.num_parameters))
    state = runs.dynamics.init(runs.target, jax.random.key(0), position)
    return runs.dynamics.step(runs.target, jax.random.key(0), state)[1]["num_gradients"]


def event(runs: Runs, found: Ladder) -> Event:
    """P(g > c) of a replicate, with the variance that independent runs would have."""
    values, count = found.seen[-1][:, 0], len(found.particles)
    share = float(np.mean(values > float(runs.threshold)))
    variance = float(np.sum(1 / found.ess - 1)) / count
    variance += (1 - share) / (share * count) if share else 0.0
    return Event(float(np.exp(found.log_evidence)) * share, variance, float(found.seen[..., 0].max()), 0.0)


def pooled(found: Ladder) -> Pool:
    r"""Runs of every stage as draws of the mixture of all conditional laws: w_i = (sum_j 1{g > c_j} / P_j)^{-1}."""
    values = found.seen[..., 0]
    reached = np.append(1.0, np.cumprod(found.ess))
    mixture = (values[..., None] > found.tempering) @ (1 / reached)
    weights = np.divide(1.0, mixture, out=np.zeros_like(mixture), where=mixture > 0)
    return Pool(values.ravel(), weights.ravel() / values.shape[1])
