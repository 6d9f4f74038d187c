"""Langevin dynamics on an inverse stable clock has the Mittag-Leffler moments, and at index 1 it is SGLD."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from statistical import assert_mean, planted_bug
from steps import largest_difference

import bayes_vs_sgd as bvs
from bayes_vs_sgd.dynamics.subordinated import SubordinatedLangevin
from bayes_vs_sgd.theory.fractional import free_displacement, mean_position, second_moment


@eqx.filter_jit
def start(dynamics, target, position):
    return dynamics.init(target, jax.random.key(0), position)


@eqx.filter_jit
def step(dynamics, target, key, state):
    return dynamics.step(target, key, state)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_index_one_is_sgld(network):
    """With equal steps every step is one of SGLD, with the key of the first inner step."""
    target, position = network
    ours, sgld = SubordinatedLangevin(1.0, step_size=1e-3), bvs.SGLD(step_size=1e-3)

    state, plain = start(ours, target, position), start(sgld, target, position)
    for number in range(5):
        key = jax.random.key(number)
        state, info = step(ours, target, key, state)
        plain, _ = step(sgld, target, jax.random.fold_in(jax.random.split(key)[0], 0), plain)
        assert info["num_gradients"] == target.model.num_rows
    assert largest_difference(state.position, position) > 1e-3
    assert largest_difference(state.position, plain.position) < 1e-13


@pytest.mark.exact
def test_gradients_are_counted_and_the_cap_defers(target):
    """Steps that fall due beyond the cap are made in later steps, none is lost."""
    length = 2.0**-14
    position = target.unflat(jnp.zeros(target.model.num_parameters))
    for cap, times, counts, capped in [
        (10_000, (4, 7.5, 0.5), (4, 7, 1), (0, 0, 0)),
        (3, (4, 3.5, 0.5), (3, 3, 2), (1, 1, 0)),
    ]:
        dynamics = SubordinatedLangevin(1.0, step_size=length, max_inner_steps=cap)
        state = start(dynamics, target, position)
        for number, (time, count, flag) in enumerate(zip(times, counts, capped, strict=True)):
            dynamics = eqx.tree_at(lambda d: d.time_step, dynamics, jnp.asarray(time * length))
            state, info = step(dynamics, target, jax.random.key(number), state)
            assert info["num_gradients"] == count * target.model.num_rows
            assert info["capped"] == flag


@pytest.fixture(scope="module")
def gaussian():
    """Posterior of rate 1 + beta n = 2 in one parameter, its mode at 0."""

    def program(y):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
        with numpyro.plate("examples", y.shape[0]):
            numpyro.sample("y", dist.Normal(theta, 1), obs=y)

    return bvs.Posterior(bvs.Model(program, data={"y": np.zeros(4)}), inverse_temperature=0.25)


@pytest.mark.law
def test_moments_in_a_harmonic_well(gaussian):
    """Two indices in one run. The clock is late by up to 0.01, which is below 0.01 in the mean, a third of chance's part."""
    begin, rate, num_chains, length, times = 2.0, 2.0, 10_000, 0.01, np.array([0.5, 1.0])
    alphas = np.repeat([0.6, 0.9], num_chains // 2)
    tree = bvs.simulate(
        SubordinatedLangevin(alphas, step_size=length, time_step=0.25),
        gaussian,
        key=0,
        num_chains=num_chains,
        num_draws=2,
        num_steps=4,
        initial={"theta": np.full(num_chains, begin)},
        observables=["loss"],
        record_positions=True,
        progress=False,
    )
    np.testing.assert_allclose(tree["posterior"]["time"], times)
    theta = tree["posterior"]["theta"].values.astype(float)
    gradients = tree["sample_stats"]["num_gradients"].values.sum(axis=1)
    for alpha in (0.6, 0.9):
        chains = theta[alphas == alpha]
        first, second = (
            (chains, mean_position(begin, rate, times, alpha)),
            (chains**2, second_moment(begin, rate, 1.0, times, alpha)),
        )
        assert_mean(first[0], expected=first[1], detects=0.11)
        assert_mean(second[0], expected=second[1], detects=0.25)
        if alpha == 0.6:  # at 0.9 the means differ by .06
            with planted_bug():  # the ordinary clock
                assert_mean(first[0], expected=mean_position(begin, rate, times, 1.0), detects=0.11)
        with planted_bug():  # an increment of the clock of step_size instead of step_size^(1/alpha)
            wrong = mean_position(begin, rate, times * length ** (1 / alpha - 1), alpha)
            assert_mean(first[0], expected=wrong, detects=0.11)
        clock = gradients[alphas == alpha] / 4 * length  # E S_t, of which the free displacement is twice
        assert_mean(clock + length / 2, expected=free_displacement(0.5, times[-1], alpha), detects=0.1)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.2}, "alpha is 1.2: it must be above 0 and at most 1"),
        ({"alpha": 0.0}, "alpha is 0.0: it must be finite and > 0"),
        ({"time_step": -1.0}, "time_step is -1.0"),
        ({"max_inner_steps": 0}, "max_inner_steps is 0: it must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(bvs.InputError, match=message):
        SubordinatedLangevin(**settings)
