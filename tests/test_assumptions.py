"""Assumptions of the Langevin audit, each on a law that is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions.central_limit import central_limit
from bayes_vs_sgd.assumptions.degeneracy import non_degeneracy
from bayes_vs_sgd.assumptions.isotropy import isotropy
from bayes_vs_sgd.assumptions.local import local
from bayes_vs_sgd.assumptions.path import LAGS, anomalous_diffusion
from bayes_vs_sgd.claims.programs import quadratic


def at_the_minimum(hessian, noise, num_examples=16):
    """Target, position, Hessian and noise of a quadratic under SGD of batch one."""
    model = quadratic(np.diag(hessian), np.diag(noise), num_examples)
    target, position = bvs.Posterior(model), model.unconstrain(model.optimum)
    return target, position, local(target, bvs.Minibatch(batch_size=1), position)


@pytest.mark.law
def test_a_linear_process_diffuses_as_a_linear_one_in_flat_directions_too(x64):
    """Curvatures 1 and 1e-4: the displacement is of both, and so is that of the null; planted: one of the steep one alone."""
    rate, h = 0.1, np.array([1.0, 1e-4])
    _, _, place = at_the_minimum(h, (1.0, 1.0))
    rng = np.random.default_rng(0)
    steps = [rng.normal(size=(2000, 2)) * np.sqrt(rate / (2 * h - rate * h**2))]
    for kick in rng.normal(size=(2 * LAGS[-1] - 1, 2000, 2)):
        steps.append((1 - rate * h) * steps[-1] - rate * kick)
    paths = np.stack(steps, axis=1)

    def assert_linear(place):
        found = anomalous_diffusion(paths, place, rate)
        assert_mean(found.value, (found.interval[1] - found.value) / 1.96, expected=0.0, detects=0.1)

    assert_linear(place)
    assert anomalous_diffusion(paths, place, rate).holds
    with planted_bug():
        assert_linear(dataclasses.replace(place, noise=np.diag([1.0, 0.0])))


@pytest.mark.exact
def test_one_page_tells_one_rank_of_the_noise(x64):
    """Eigenvalues 1 and 1e-4 are two; planted: one, that above the share by which a curvature is called flat."""
    target, _, place = at_the_minimum((1.0, 1.0), (1.0, 1e-4))
    assert "2 eigenvalues of C are not zero, 0.0001 to 1" in isotropy(place).note
    assert "rank of the noise 2, of the Hessian 2, of 2" in non_degeneracy(place, target).note
    silent = dataclasses.replace(place, noise=np.diag([1.0, 1e-12]))
    assert "; 1 eigenvalues of C are not zero" in isotropy(silent).note
    assert "rank of the noise 1," in non_degeneracy(silent, target).note


def examples_of_a_mean(x):
    """The mean of a normal law: one example's gradient is theta - x."""

    def program(x):
        theta = numpyro.sample("theta", dist.Normal(0, 10))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("x", dist.Normal(theta, 1.0), obs=x)

    return bvs.Posterior(bvs.Model(program, {"x": np.asarray(x, float)})), {"theta": jnp.zeros(())}


@pytest.mark.exact
def test_a_skewed_law_without_excess_kurtosis_is_not_normal(x64):
    """Two points, p = 4/19: skewness (1 - 2p) / sqrt(p(1 - p)) = 1.42, excess kurtosis 1 / p(1 - p) - 6 = .02 (planted)."""
    at = examples_of_a_mean([1.0] * 4 + [0.0] * 15)
    skewness = 11 / np.sqrt(60)
    single, *batches = (central_limit(at[0], bvs.Minibatch(batch_size=b), at[1]) for b in (1, 4, 9))
    assert single.value == pytest.approx(skewness)
    assert single.holds is False
    assert [found.value for found in batches] == pytest.approx([skewness / 2, skewness / 3])
    assert all(found.holds for found in batches)
    assert "skewness, the largest of 1 directions; within the margin from batches of 3 on" in single.note
    drawn = central_limit(at[0], bvs.IsotropicNoise(1), at[1])  # has its variance alone
    assert drawn.holds
    assert drawn.interval[0] < drawn.value < drawn.interval[1]


@pytest.mark.exact
def test_of_symmetric_noise_the_kurtosis_counts(x64):
    """Points -1, 0 and 1, three of 25 at either end: excess kurtosis 1 / .24 - 3 = 7/6."""
    at = examples_of_a_mean([1.0] * 3 + [-1.0] * 3 + [0.0] * 19)
    for batch, holds in ((1, False), (4, True)):
        found = central_limit(at[0], bvs.Minibatch(batch_size=batch), at[1])
        assert found.value == pytest.approx(7 / 6 / batch)
        assert found.holds is holds
        assert "excess kurtosis, the largest of 1 directions; within the margin from batches of 2 on" in found.note
