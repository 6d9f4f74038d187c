"""Every sampler makes the noise that its equation says, and samples the posterior it claims."""

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from statistical import assert_mean, chain_mean, planted_bug
from steps import largest_difference, one_step

import bayes_vs_sgd as bvs

# Langevin


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_sgld_at_temperature_zero_is_gradient_descent(network):
    """At n beta = 1e34 and epsilon = eta / (n beta) noise and prior are below rounding: theta' = theta - eta grad L."""
    target, position = network
    cold = eqx.tree_at(lambda t: t.inverse_temperature, target, jnp.asarray(1e34 / 30))
    moved = one_step(bvs.SGLD(step_size=0.05 / 1e34), cold, position)
    descended = one_step(bvs.GradientDescent(0.05), target, position)
    assert largest_difference(descended, position) > 1e-2
    assert largest_difference(moved, descended) < 1e-12


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_noise_of_sgld(network):
    """theta' - theta - epsilon grad log p is normal with variance 2 epsilon, independent entry by entry."""
    target, position = network
    step_size = 1e-3
    sgld = bvs.SGLD(step_size=step_size)

    @eqx.filter_jit
    def noises(keys):
        drift = step_size * target.flat(jax.grad(target.log_density)(position))
        moved = jax.vmap(lambda key: target.flat(sgld.step(target, key, sgld.init(target, key, position))[0].position))
        return moved(keys) - target.flat(position) - drift

    noise = np.asarray(noises(jax.random.split(jax.random.key(6), 10_000)))
    scale = np.sqrt(2 * step_size)
    assert_mean(noise, expected=0.0, detects=0.12 * scale)
    assert_mean(noise**2, expected=scale**2, detects=0.18 * scale**2)
    assert_mean(noise[:, 1:] * noise[:, :-1], expected=0.0, detects=0.12 * scale**2)
    with planted_bug():  # sqrt(epsilon) in the place of sqrt(2 epsilon)
        assert_mean(noise**2 / 2, expected=scale**2, detects=0.18 * scale**2)


# Samplers of BlackJAX


@pytest.fixture(scope="module")
def gaussian():
    """Two observed means with prior N(0, 1): the posterior is normal with precision 1 + n / sigma^2."""

    def program(y):
        theta = numpyro.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("examples", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, jnp.array([1.0, 3.0])).to_event(1), obs=y)

    y = np.random.default_rng(7).normal(loc=(1.0, -2.0), size=(9, 2))
    precision = 1 + 9 / np.array([1.0, 9.0])
    mean = y.sum(axis=0) / np.array([1.0, 9.0]) / precision
    observables = {
        "theta": lambda model, values: values["theta"],
        "squares": lambda model, values: (values["theta"] - jnp.asarray(mean)) ** 2,
    }
    return bvs.Posterior(bvs.Model(program, {"y": y}, observables=observables)), mean, 1 / precision


@pytest.mark.law
def test_from_blackjax_samples_a_gaussian_posterior(gaussian):
    target, mean, variance = gaussian
    mala = bvs.from_blackjax(lambda logdensity: blackjax.mala(logdensity, step_size=0.15))
    settings = {"num_chains": 16, "num_draws": 3000, "num_warmup": 200, "observables": ["theta", "squares"]}
    tree = bvs.simulate(mala, target, key=8, progress=False, **settings)
    assert tree["sample_stats"]["acceptance_rate"].mean() > 0.5
    assert_mean(*chain_mean(tree, "theta"), expected=mean, detects=0.08)
    assert_mean(*chain_mean(tree, "squares"), expected=variance, detects=0.08)
    with planted_bug():  # the prior is left out
        assert_mean(*chain_mean(tree, "squares"), expected=1 / (1 / variance - 1), detects=0.08)


@pytest.mark.law
def test_nuts_samples_a_gaussian_posterior_and_tunes_each_chain(gaussian):
    target, mean, variance = gaussian
    settings = {"num_chains": 8, "num_draws": 1500, "num_warmup": 150, "observables": ["theta", "squares"]}
    tree = bvs.simulate(bvs.NUTS(), target, key=9, progress=False, **settings)
    assert_mean(*chain_mean(tree, "theta"), expected=mean, detects=0.08)
    assert_mean(*chain_mean(tree, "squares"), expected=variance, detects=0.08)
    with planted_bug():  # the posterior at inverse temperature 1/2
        hot = 1 / (1 + (1 / variance - 1) / 2)
        assert_mean(*chain_mean(tree, "squares"), expected=hot, detects=0.08)
    first = tree["posterior"]["theta"].isel(draw=0).values
    assert len(np.unique(first[:, 0])) == 8


@pytest.mark.exact
def test_nuts_keeps_what_the_warmup_tuned(gaussian):
    """After the warm-up each chain has its own step size and mass matrix, and the draws leave them alone."""
    target, _, _ = gaussian
    nuts = bvs.NUTS()
    schedule = nuts.warmup_schedule(150)

    @eqx.filter_jit
    def tune(key):
        def body(state, inputs):
            key, stage = inputs
            return nuts.warmup_step(target, key, state, stage)

        start = nuts.init(target, key, {"theta": jax.random.normal(key, (2,))})
        state, _ = jax.lax.scan(body, start, (jax.random.split(key, 150), schedule))
        return state, nuts.step(target, key, state)[0]

    tuned, drawn = jax.vmap(tune)(jax.random.split(jax.random.key(10), 6))
    assert len(np.unique(tuned.step_size)) == 6
    assert len(np.unique(tuned.inverse_mass_matrix[:, 0])) == 6
    np.testing.assert_array_equal(tuned.step_size, drawn.step_size)
    np.testing.assert_array_equal(tuned.inverse_mass_matrix, drawn.inverse_mass_matrix)
    assert not np.any(np.all(tuned.position["theta"] == drawn.position["theta"], axis=1))
