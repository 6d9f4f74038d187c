"""Simulation-based calibration: right samplers have uniform ranks, one that is wrong has not; one compilation for all data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_frequencies, assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.sbc import Calibration, Chain, Particles, calibrate, observing, redraw, uncompressed

SIMULATIONS, BINS, SEEN = 1024, 8, 0.4
SMALL = {"num_examples": 16, "num_held_out": 2}


@pytest.fixture
def regression(load):
    return bvs.Posterior(load("linear_regression", covariance=(2.0, 0.5), **SMALL), 0.5)


def assert_uniform(found):
    for name in found.ranks:
        assert_frequencies(found.counts(name, BINS), detects=SEEN, false_alarm=1e-6 / len(found.ranks))


@pytest.mark.law
def test_gibbs_of_a_tempered_regression_is_calibrated_and_langevin_with_a_large_step_is_not(regression):
    """The precision is 17: a step of .08 makes the variance 3 times too large."""
    found = calibrate(regression, Chain(regression.model.exact_sampler, 0, 1), 1, SIMULATIONS)
    assert sorted(found.ranks) == ["loss", "mode_1", "mode_2", "squared_norm"]
    assert_uniform(found)
    assert found.p > 1e-6
    biased = calibrate(regression, Chain(bvs.SGLD(0.08), 50, 5), 2, SIMULATIONS)
    with planted_bug():
        assert_uniform(biased)
    assert biased.p < 1e-6


class Untempered(Chain):
    """Samples the posterior at inverse temperature 1, whatever that of the data."""

    def __call__(self, target, key):
        return super().__call__(eqx.tree_at(lambda t: t.inverse_temperature, target, jnp.ones(())), key)


@pytest.mark.law
def test_a_posterior_at_another_temperature_than_the_data_is_seen(regression):
    """Which no coordinate of the parameters need show, but the loss does."""
    found = calibrate(regression, Untempered(regression.model.exact_sampler, 0, 1), 1, SIMULATIONS)
    with planted_bug():
        assert_uniform(found)


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [Chain(bvs.NUTS(), 200, 3), Particles(num_particles=256, num_moves=4), Chain(bvs.Grid(2**19), 0, 1)],
    ids=["nuts", "smc", "grid"],
)
def test_samplers_of_a_singular_model_are_calibrated(load, sampler):
    """The product of two weights, of which 800 simulations see a relative deviation of .4."""
    found = calibrate(bvs.Posterior(load("product", target=1.0, **SMALL)), sampler, 3, 800)
    assert_uniform(found)


@pytest.mark.exact
def test_all_data_are_sampled_in_one_compiled_call(regression, compiled):
    sampler = Chain(regression.model.exact_sampler, 0, 1, num_draws=3)
    first = calibrate(regression, sampler, 1, 4)
    compiled()
    again = calibrate(regression, sampler, 2, 4)
    assert compiled() == []
    assert any(np.any(first.ranks[name] != again.ranks[name]) for name in first.ranks)


@pytest.mark.law
def test_observations_are_drawn_with_the_noise_of_the_tempered_likelihood(regression):
    target = uncompressed(regression)
    position = target.model.sample_prior(jax.random.key(0))
    mean = target.model.predictions(position)["y"]
    drawn = jax.vmap(lambda key: redraw(target, key, position))(jax.random.split(jax.random.key(1), 4000))
    assert_mean(np.asarray(drawn - mean), expected=0.0, detects=0.25)
    assert_mean(np.mean(np.asarray(drawn - mean) ** 2, axis=1), expected=2.0, detects=0.12)  # 1 / beta
    other = observing(target, drawn[0])
    assert jnp.array_equal(other.model.data["y"], drawn[0])


@pytest.mark.exact
def test_ranks_are_binned_evenly():
    found = Calibration({"x": np.arange(64)}, 63)
    assert found.counts("x").tolist() == [4] * 16
    assert found.p == pytest.approx(1.0)
