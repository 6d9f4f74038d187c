"""Nested slice sampling (BlackJAX) used as multilevel splitting: the rule of two settings refuses it where it is wrong."""

from typing import NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.ns.from_mcmc import update_with_mcmc_take_last
from scipy.optimize import brentq
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.robustness.draws import as_vectors
from bayes_vs_sgd.robustness.particles import Replicate, doubts, replicates
from bayes_vs_sgd.robustness.tilt import Event, Law, Pool, Tilt
from bayes_vs_sgd.tempered import Ladder, _memory

COUNT, KEPT, MOST_LEVELS = 2000, 0.5, 100
"""Particles, the share above the next level, and levels at most: every stage moves a thousand."""
MOVES, RARE = 32, 1e-6
"""Twice the number of weights of the network, as is recommended; and how rare the event is."""
NOISY = {"widths": (2, 4, 1), "spectrum": (1.0,), "noise": 0.5, "num_examples": 50, "inputs": "gaussian"}


def remembering(step, num_steps, num_delete):
    """BlackJAX's moves of copies, with where each began."""

    def seen(key, state, **parameters):
        return step(key, state, **parameters)[0], state.position

    inner = update_with_mcmc_take_last(seen, num_steps, num_delete)

    def update(key, state, level, **parameters):
        moved, places = inner(key, state, level, **parameters)
        return moved, (places[:, 0], moved.position)

    return update


@eqx.filter_jit
def nested(path, key, num_moves: int):
    """Particles until the next level is beyond the threshold: values, number of levels, and the memory of each stage."""
    algorithm = blackjax.nss(
        path.log_base, path.value, num_moves, num_delete=int((1 - KEPT) * COUNT), update_strategy=remembering
    )

    def below(carry):
        state, index, _ = carry
        level = jnp.sort(state.particles.loglikelihood)[int((1 - KEPT) * COUNT) - 1]
        return (level <= path.threshold) & (index < MOST_LEVELS)

    def advance(carry):
        state, index, memory = carry
        state, info = algorithm.step(jax.random.fold_in(key, index), state)
        return state, index + 1, memory.at[index].set(_memory(path.coordinates, *info.update_info))

    begun = (algorithm.init(path.starts), 0, jnp.zeros(MOST_LEVELS))
    state, count, memory = jax.lax.while_loop(below, advance, begun)
    return state.particles.loglikelihood, state.particles.position, count, memory


class NestedSlices(NamedTuple):
    """A law whose density is known, with draws of it for each replicate."""

    target: bvs.Posterior
    item: bvs.Property
    threshold: float
    starts: list

    def replicate(self, index, num_moves, key, folder):
        """One replicate."""
        numbers = (jnp.asarray(part, float) for part in (self.starts[index], self.threshold, 1.0))
        path = Tilt(self.item, Law(self.target), *numbers)
        values, positions, count, memory = nested(path, jax.random.fold_in(key, index), num_moves)
        count, share = int(count), float(np.mean(values > self.threshold))
        shares, none = np.full(count, KEPT), np.zeros(count)
        variance = (count * (1 / KEPT - 1) + (1 - share) / share) / COUNT
        found = Event(KEPT**count * share, variance, float(values.max()), 0.0)
        g, even = np.asarray(values), np.full(COUNT, 1 / COUNT)
        parts = (none, none, none, none, np.asarray(memory)[:count], shares, g[None, :, None], 0.0)
        ladder = Ladder(np.log(KEPT) * count, *parts, np.asarray(positions), even)
        return Replicate(found, Pool(g, even), None, ladder, path)


def both(target, name, num_moves, count):
    """Replicates with k moves and with 2k at the threshold where the event has the probability RARE, over it."""
    item = target.model.properties[name]

    def gap(threshold):
        return np.log(max(item.exact(target, threshold), 1e-300) / RARE)

    threshold = float(brentq(gap, 1.0, 100.0))
    settings = {"num_draws": COUNT // 8, "num_warmup": 200, "record_positions": True, "progress": False}
    tree = bvs.simulate(target.model.exact_sampler, target, key=0, num_chains=8 * count, **settings)["posterior"]
    vectors = as_vectors(target, {site: np.asarray(tree[site], float) for site, _ in target.model.latents})
    starts = list(vectors.reshape(count, COUNT, -1))
    problem = NestedSlices(target, item, threshold, starts)
    return [replicates(problem, moves, count, 0, None, lambda line: None) for moves in (num_moves, 2 * num_moves)]


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_few_moves_along_a_thin_fibre_are_refused(load):
    """Two layers on noisy data: two settings find different probabilities, both too low, and the moves remember."""
    model = load("deep_linear", num_held_out=2, **NOISY)
    fewer, more = both(bvs.Posterior(model), "trigger", MOVES, 12)
    values = np.array([run.found.probability for run in more]) / RARE
    with planted_bug():
        assert_mean(values, expected=1.0, detects=0.6)
    found = doubts(fewer, more)
    assert any("still remember" in doubt for doubt in found), found
    assert any("2k give" in doubt or "spread" in doubt for doubt in found), found


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_where_it_is_right_it_is_not_refused(load):
    """The product of two weights under the prior, at one in a million; planted: twice the probability."""
    fewer, more = both(bvs.Posterior(load("product"), 0.0), "size", 8, 16)
    values = np.array([run.found.probability for run in more]) / RARE
    assert doubts(fewer, more) == []
    assert_mean(values, expected=1.0, detects=0.9)
    with planted_bug():
        assert_mean(values, expected=2.0, detects=0.9)
