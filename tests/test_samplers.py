"""Every sampler makes the noise that its equation says, and samples the posterior it claims."""

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
from ensembles import time_averages
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


@pytest.fixture(scope="module")
def quartic():
    """Two Gaussian coordinates of precision 10 and 2, and two of density exp(-q^2 / 2 - 9 q^4 / 2) by quadrature."""

    def program(y, zero):
        theta = numpyro.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        q = numpyro.sample("q", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("examples", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, jnp.array([1.0, 3.0])).to_event(1), obs=y)
            numpyro.sample("zero", dist.Normal(q**2, 1).to_event(1), obs=zero)

    y = np.random.default_rng(7).normal(loc=(1.0, -2.0), size=(9, 2))
    model = bvs.Model(program, {"y": y - y.mean(axis=0), "zero": np.zeros((9, 2))})
    zeroth, second = (
        scipy.integrate.quad(lambda q, k=k: q**k * np.exp(-(q**2) / 2 - 9 * q**4 / 2), -5, 5)[0] for k in (0, 2)
    )
    return bvs.Posterior(model), np.array([1 / 10, 1 / 2, second / zeroth, second / zeroth])


def squares(position):
    return jnp.concatenate([position["theta"], position["q"]]) ** 2


SHORT = {"num_chains": 512, "num_steps": 1000, "num_warmup": 300, "scale": 0.3}


@pytest.mark.law
def test_mala_samples_what_langevin_steps_of_its_size_do_not(quartic):
    """The planted bug is MALA without its Metropolis correction, whose variance is known in closed form."""
    target, expected = quartic
    found, states, info = time_averages(bvs.MALA(), target, squares, key=12, **SHORT)
    assert_mean(found / expected, expected=1, detects=0.07)
    assert 0.5 < info["acceptance_rate"].mean() < 0.7
    size = np.asarray(states.step_size[:, None] * states.inverse_mass_matrix)[:, :2]  # theta follows q
    with planted_bug():
        assert_mean(found[:, :2] * (1 / expected[:2] - size / expected[:2] ** 2 / 2), expected=1, detects=0.07)


@pytest.mark.slow
@pytest.mark.law
def test_mclmc_is_as_good_as_its_energy_error(quartic):
    """The planted bug is a step size that is not tuned down: an energy error of 0.3 a dimension."""
    target, expected = quartic
    settings = SHORT | {"num_warmup": 600}
    found, _, info = time_averages(bvs.MCLMC(energy_variance=1e-5), target, squares, key=13, **settings)
    assert_mean(found / expected, expected=1, detects=0.07)
    assert 1e-5 / 3 < info["energy_error"].mean() < 3e-5
    found, _, _ = time_averages(bvs.MCLMC(energy_variance=0.3), target, squares, key=13, **settings)
    with planted_bug():
        assert_mean(found / expected, expected=1, detects=0.07)


@pytest.mark.law
@pytest.mark.slow
def test_adjusted_mclmc(quartic):
    target, expected = quartic
    settings = SHORT | {"num_chains": 256, "num_steps": 500}
    found, _, info = time_averages(bvs.AdjustedMCLMC(step_size=0.5), target, squares, key=13, **settings)
    assert_mean(found / expected, expected=1, detects=0.07)
    assert 0.85 < info["acceptance_rate"].mean() < 0.99
    with planted_bug():  # the posterior at inverse temperature 1/2
        assert_mean(found[:, :2] / [2 / 11, 2 / 3], expected=1, detects=0.07)


@pytest.mark.law
@pytest.mark.parametrize("make", [bvs.SGHMC, bvs.SGNHT], ids=["SGHMC", "SGNHT"])
def test_underdamped_samplers(quartic, make):
    """The full batch; at h = 0.1 the bias O(h^2) is below what is seen."""
    target, expected = quartic
    found, _, _ = time_averages(make(0.1, 3.0), target, squares, key=14, **SHORT)
    assert_mean(found / expected, expected=1, detects=0.08)
    with planted_bug():  # the posterior at inverse temperature 1/2
        assert_mean(found[:, :2] / [2 / 11, 2 / 3], expected=1, detects=0.08)
