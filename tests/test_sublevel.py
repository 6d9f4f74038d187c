"""The prior on a sublevel set: exact laws at two sizes, states that never leave it, and components that are not left."""

import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.diagnostics import mean_error
from bayes_vs_sgd.dynamics.sublevel import SublevelHMC
from bayes_vs_sgd.theory.rare_events import sublevel_exceedance

TOLERANCES, CHAINS = (0.1, 0.5), 32
"""Sizes of |v'W e1 - 1|, with four hidden units, and chains of each."""


class Careless(SublevelHMC):
    """Takes every end inside, whatever the prior says of it."""

    def log_ratio(self, gain):
        return jnp.zeros_like(gain)


@pytest.fixture
def network(load):
    """One example of noise one: the loss is (v'W e1 - 1)^2 / 2 more than at the minimum."""
    settings = {"widths": (1, 4, 1), "spectrum": (1.0,), "noise": 1.0, "num_examples": 4}
    return bvs.Posterior(load("deep_linear", unseen_inputs=1, noise_free=True, **settings))


def walk(kind, target, **settings):
    dynamics = kind(np.repeat(np.square(TOLERANCES) / 2, CHAINS), **settings)
    shared = {"observables": ["loss", "trigger"], "progress": False}
    return bvs.simulate(dynamics, target, key=0, num_chains=2 * CHAINS, num_draws=2000, num_warmup=500, **shared)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_the_law_on_a_sublevel_set_is_exact(network):
    """P(|v'W e2| > c) at c = 1 and 3 (S4); every state is inside; without Metropolis' test the prior's tails come back."""
    tree = walk(SublevelHMC, network)
    least = float(SublevelHMC(1.0).prepare(network).least_loss)
    excess = np.asarray(tree["posterior"]["loss"]) - least
    for part, tolerance in zip(np.split(excess, 2), TOLERANCES, strict=True):
        assert part.max() <= tolerance**2 / 2 * (1 + 1e-9)
        assert part.max() > 0.9 * tolerance**2 / 2
    for threshold, detects in ((1.0, 0.1), (3.0, 0.06)):
        assert_exceedance(tree, threshold, detects)
    careless = walk(Careless, network)
    with planted_bug():
        assert_exceedance(careless, 3.0, 0.2)


def assert_exceedance(tree, threshold, detects):
    beyond = np.asarray(tree["posterior"]["trigger"]) > threshold
    values = [(part.mean(), mean_error(part.astype(float), False)) for part in np.split(beyond, 2)]
    exact = [sublevel_exceedance(threshold, tolerance, 4) for tolerance in TOLERANCES]
    assert_mean(*np.transpose(values), expected=exact, detects=detects)
