"""The prior on a sublevel set: exact laws, states that never leave it, components that are not left."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm, truncnorm
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.verdict import MATCHES
from bayes_vs_sgd.diagnostics import mean_error
from bayes_vs_sgd.dynamics import fibre
from bayes_vs_sgd.dynamics.sublevel import SublevelHMC
from bayes_vs_sgd.theory.rare_events import fitted_exceedance, sublevel_exceedance

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


EXCESS = 0.5 / 2.0 ** np.arange(6)
"""Halved five times, from |v'W e1 - 1| <= 1 on, where the prior is of scale .5: what lacks to the fibre is 48 to 3 %."""


@pytest.mark.exact
def test_what_lacks_to_the_fibre_is_halved_with_the_set():
    """P(|v'W e2| > 1) comes to the fibre's with an error proportional to epsilon; not to that of the prior's density there."""
    lacks = [fitted_exceedance(1.0, 4, prior_scale=0.5) - tail_within(excess) for excess in EXCESS / 8]
    assert np.divide(lacks[1:], lacks[:-1]) == pytest.approx(0.5, abs=0.03)
    assert abs(lacks[-1]) < 5e-4
    assert abs(tail_within(EXCESS[-1] / 8) - fitted_exceedance(1.0, 4, 0, prior_scale=0.5)) > 0.015


def tail_within(excess):
    return sublevel_exceedance(1.0, np.sqrt(2 * excess), 4, 1.0, 0.5)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_smaller_and_smaller_sets_come_to_the_fibre(load, monkeypatch):
    """Each set has its law (S4), and what the last two lead on to is the fibre's draws' (S3).

    Planted: the largest set, and a fibre weighted by the prior's density alone.
    """
    settings = {"widths": (1, 4, 1), "spectrum": (1.0,), "noise": 1.0, "num_examples": 4, "prior_scale": 0.5}
    target = bvs.Posterior(load("deep_linear", unseen_inputs=1, noise_free=True, **settings))
    shared = {"observables": ["trigger"], "progress": False, "key": 0}
    lengths = {"num_chains": CHAINS * len(EXCESS), "num_draws": 6000, "num_warmup": 500}
    sets = bvs.simulate(SublevelHMC(np.repeat(EXCESS, CHAINS)), target, **lengths, **shared)
    beyond = (np.asarray(sets["posterior"]["trigger"]) > 1.0).mean(axis=1).reshape(len(EXCESS), CHAINS)
    assert_mean(beyond.T, expected=[tail_within(excess) for excess in EXCESS], detects=0.03)

    def fibres():
        tree = bvs.simulate(bvs.LinearNetworkFibre(), target, num_chains=3 * CHAINS, num_draws=1500, **shared)
        return (np.asarray(tree["posterior"]["trigger"]) > 1.0).mean(axis=1)

    draws, limit = fibres(), fitted_exceedance(1.0, 4, prior_scale=0.5)
    assert_mean(draws, expected=limit, detects=0.015)
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert_mean(2 * beyond[-1] - beyond[-2], expected=draws.mean(), expected_error=error, detects=0.04)
    with planted_bug():
        assert_mean(beyond[0], expected=draws.mean(), expected_error=error, detects=0.04)
    density = fibre.log_density
    monkeypatch.setattr(fibre, "log_density", lambda r, hidden, rank, *more: density(r, hidden, 0, *more))
    with planted_bug():
        assert_mean(fibres(), expected=limit, detects=0.015)


CENTER, SCALE = 0.5, 0.5
ENDS = np.sqrt([0.5, 1.5])
"""Of {|w^2 - 1| <= 1/2}: two intervals, [-b, -a] and [a, b]."""


@pytest.fixture
def parts():
    """The square of a weight fitted to 1, and a prior that is not even."""

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(CENTER, SCALE))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w**2 * x, 1), obs=y)

    data = {"x": np.ones(4), "y": np.ones(4)}
    return bvs.Model(program, data, optimum={"w": 1.0}, properties={"below": lambda model, values: -values["w"]})


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_components_are_not_left_and_each_has_its_law(parts):
    """The mean of w in each interval, over independent chains, none of which stands still; planted: the uniform law there."""
    dynamics, lengths = SublevelHMC(0.125, num_leapfrogs=16), {"num_chains": 256, "num_draws": 400, "num_warmup": 300}
    tree = bvs.simulate(dynamics, bvs.Posterior(parts), key=0, record_positions=True, progress=False, **lengths)
    w = np.asarray(tree["posterior"]["w"])
    assert w.std(axis=1).min() > 0.05
    assert np.abs(w).min() >= ENDS[0] * (1 - 1e-9)
    assert np.abs(w).max() <= ENDS[1] * (1 + 1e-9)
    for sign in (-1, 1):
        chains = w[np.sign(w[:, 0]) == sign]
        assert len(chains) > 20
        assert np.all(np.sign(chains) == sign)
        low, high = sorted(sign * ENDS)
        exact = truncnorm.mean((low - CENTER) / SCALE, (high - CENTER) / SCALE, CENTER, SCALE)
        assert_mean(chains.mean(axis=1), expected=exact, detects=0.025)
        with planted_bug():
            assert_mean(chains.mean(axis=1), expected=(low + high) / 2, detects=0.025)


@pytest.mark.law
@pytest.mark.slow
def test_runs_are_compared_with_the_prior_on_a_sublevel_set(network):
    """Other chains of its own match; planted: gradient descent from a small start, whose layers stay small."""
    judged = ["trigger", "total_norm"]
    settings = {"observables": ["loss", *judged], "progress": False}
    chains = {"num_chains": 16, "num_draws": 1000, "num_warmup": 300} | settings
    reference = bvs.simulate(SublevelHMC(0.125, num_leapfrogs=64), network, key=0, **chains)
    others = bvs.simulate(SublevelHMC(0.125, num_leapfrogs=64), network, key=1, **chains)
    assert bvs.compare(others, reference, primary_observables=judged).verdict in MATCHES
    small = {"num_chains": 500, "num_steps": 500, "initial_scale": 0.5}
    run = bvs.simulate(bvs.GradientDescent(0.05), network, key=1, **small, **settings)
    assert bvs.compare(run, reference, primary_observables=judged).verdict == "mismatch"


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_particles_of_the_prior_weigh_the_components(parts):
    """P(w < 0) is the prior's share of the lower interval, planted: that of the starts there.

    Particles cross where the set is wide, since they are only pulled towards it; where none does it is not trusted.
    """
    apart = bvs.robustness(parts, "below", 0.0, law="sublevel", excess_loss=0.005, num_moves=8, num_replicates=16)
    assert any("still remember" in warning for warning in apart.warnings)
    found = bvs.robustness(parts, "below", 0.0, law="sublevel", excess_loss=0.125, num_moves=8, num_replicates=16)
    assert found.trusted, found.warnings
    lower, upper = (np.diff(norm.cdf(sorted(sign * ENDS), CENTER, SCALE))[0] for sign in (-1, 1))
    assert_mean(found.replicates["twice_the_moves"], expected=lower / (lower + upper), detects=0.02)
    with planted_bug():
        assert_mean(found.replicates["twice_the_moves"], expected=norm.cdf(0, CENTER, SCALE), detects=0.02)
    assert found.to_json()["note"] == "components of the set that no particle of the prior came into are not known of"
    assert not any("component" in warning for warning in found.warnings)
