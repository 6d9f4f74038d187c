"""Learning rates beyond stability are told as such."""

import jax.numpy as jnp
import numpy as np
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import regression
from bayes_vs_sgd.comparison.instability import instability
from bayes_vs_sgd.comparison.landscape import Landscape
from bayes_vs_sgd.mean_square import growth, limit_of, mean_square_limit, products
from bayes_vs_sgd.settings import Compare

HADAMARD = {"isotropic": True, "covariance": (1.0,) * 4, "num_examples": 256, "prior_scale": 30.0}
"""Inputs x_i^2 = 1 and H = I: of batches of B the mean square is bounded below 2 / (1 + 3/B), the mean below 2 (1 + mu).

With momentum .5 and B = 8 the roots of ``moment_map`` (q = 1.375) leave the unit circle at 24/17, and at 1.02199 looking ahead.
"""


def study_of(model, **settings):
    return bvs.Study(model, Compare(**settings), progress=False)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("dynamics", "said"),
    [
        (bvs.SGD(1.45, 8), ""),
        (bvs.SGD(1.46, 8), "1.46 is beyond 1.45, the limit of mean-square stability"),
        (bvs.SGD(2.01, 8), "2.01 is beyond 2, where the linearised dynamics"),
        (bvs.SGD(1.46, sampling=bvs.GaussianNoise(8)), "1.46 is beyond 1.45, the limit of mean-square stability"),
        (bvs.SGD(1.46, sampling=bvs.IsotropicNoise(8)), ""),
        (bvs.GradientDescent(1.99), ""),
        (bvs.GradientDescent(2.01), "2.01 is beyond 2,"),
        (bvs.SGD(1.41, 8, momentum=0.5), ""),
        (bvs.SGD(1.42, 8, momentum=0.5), "1.42 is beyond 1.41, the limit of mean-square stability"),
        (bvs.SGD(1.02, 8, momentum=0.5, nesterov=True), ""),
        (bvs.SGD(1.03, 8, momentum=0.5, nesterov=True), "1.03 is beyond 1.02, the limit of mean-square stability"),
        (bvs.SGD(3.1, 8, momentum=0.5), "3.1 is beyond 3,"),
        (bvs.SGD(1.51, 8, momentum=0.5, nesterov=True), "1.51 is beyond 1.5,"),
        (bvs.SGD([3.1, 3.1], 8), ""),
        (bvs.SGD(3.1, 8, momentum=[0.5, 0.5]), ""),
        (bvs.SGD(3.1, sampling=bvs.GaussianNoise([8.0, 8.0])), ""),
        (bvs.Adam(3.0, 8), ""),
    ],
)
def test_what_is_beyond_which_limit(dynamics, said, load):
    found = instability(dynamics.settings, Landscape(load("linear_regression", **HADAMARD)))
    assert said in found
    assert bool(found) is bool(said)


@pytest.mark.exact
def test_the_growth_is_that_of_the_second_moments(x64):
    """Of one weight and inputs a, b it is 1 - 2 eta h + eta^2 (h^2 + v/B); batches all alike (planted) leave v out."""
    squares = np.array([0.5, 3.5])
    model = regression(np.sqrt(squares)[:, None], np.zeros(2))
    h, v, eta = squares.mean(), squares.var(), 0.8
    exact = 1 - 2 * eta * h + eta**2 * (h**2 + v / 2)
    second, values = products(squares[:, None, None]), np.array([h])
    assert growth(second, values, 2, eta) == pytest.approx(exact)
    assert growth(second, values, np.inf, eta) == pytest.approx((1 - eta * h) ** 2) != pytest.approx(exact)
    limit = 2 * h / (h**2 + v / 2)
    assert mean_square_limit(bvs.Posterior(model), {"w": jnp.zeros(1)}, 2) == pytest.approx(limit, rel=1e-5)


def moment_map(h, q, eta, mu, nesterov):
    """Of E theta^2, E theta m and E m^2 in one weight, by hand: m' = mu m + g and theta' = theta - eta (g + mu m'), or eta m'."""
    a, b = (eta * (1 + mu), eta * mu**2) if nesterov else (eta, eta * mu)  # theta' = theta - a g - b m
    return np.array([
        [1 - 2 * a * h + a**2 * q, -2 * b * (1 - a * h), b**2],
        [h - a * q, mu * (1 - a * h) - b * h, -b * mu],
        [q, 2 * mu * h, mu**2],
    ])  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("eta", "mu"), [(0.3, 0.5), (0.6, 0.9), (1.1, 0.3)])
def test_the_growth_with_momentum_is_that_of_three_moments(eta, mu, nesterov):
    squares = np.array([0.5, 3.5])
    h, v = squares.mean(), squares.var()
    exact = max(abs(np.linalg.eigvals(moment_map(h, h**2 + v / 2, eta, mu, nesterov))))
    second, values = products(squares[:, None, None]), np.array([h])
    found = growth(second, values, 2, eta, mu, nesterov)
    assert found == pytest.approx(exact, rel=1e-8)
    assert found != pytest.approx(growth(second, values, 2, eta, mu, not nesterov), rel=1e-3)


@pytest.mark.exact
@pytest.mark.parametrize(("momentum", "batch"), [(0.0, 8), (0.5, 1e9), (0.99, 8)])
def test_the_limit_is_where_moments_stop_growing_however_near_the_modes_lie(momentum, batch):
    """Thirteen modes that all shrink by nearly the root of the momentum; without noise the limit is that of the mean."""
    x = np.random.default_rng(0).normal(size=(132, 13))
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    second = products(np.einsum("ni,nj->nij", x @ vectors, x @ vectors))
    limit, mean = limit_of(second, values, batch, momentum), 2 * (1 + momentum) / values[-1]
    assert growth(second, values, batch, limit * (1 - 1e-4), momentum) < 1
    assert growth(second, values, batch, limit * (1 + 1e-4), momentum) > 1
    assert bool(limit == pytest.approx(mean, rel=1e-5)) is (batch == 1e9)


@pytest.mark.law
@pytest.mark.parametrize("nesterov", [False, True])
def test_second_moments_of_runs_with_momentum_are_those_of_the_map(nesterov, load, x64):
    """Hadamard inputs, labels without noise, eight steps from one place: E |w|^2 by the map of one weight, q = 1 + 3/B."""
    squares, eta, mu, batch, steps = np.ones((64, 4)), 0.7, 0.5, 2, 8
    x = np.array([[(-1) ** bin(i & j).count("1") for j in (1, 2, 4, 8)] for i in range(64)], float)
    assert np.array_equal(x**2, squares)
    model = regression(x, np.zeros(64))
    dynamics = bvs.SGD(eta, batch, momentum=mu, nesterov=nesterov)
    tree = bvs.simulate(
        dynamics, bvs.Posterior(model), initial={"w": np.ones((20_000, 4))}, num_chains=20_000, num_steps=steps, num_draws=1,
        record_positions=True, progress=False, key=0,
    )  # fmt: skip
    found = np.sum(np.asarray(tree["posterior"]["w"].values[:, -1], float) ** 2, axis=1)
    step = moment_map(1.0, 1 + 3 / batch, eta, mu, nesterov)
    exact = 4 * np.linalg.matrix_power(step, steps)[0, 0]
    assert_mean(found, expected=exact, detects=0.3 * exact)
    with planted_bug():  # momentum that does not look ahead, or does
        other = 4 * np.linalg.matrix_power(moment_map(1.0, 1 + 3 / batch, eta, mu, not nesterov), steps)[0, 0]
        assert_mean(found, expected=other, detects=0.3 * exact)


@pytest.mark.exact
def test_examples_that_bend_while_their_mean_does_not_have_no_limit():
    within = np.array([[[1.0]], [[-1.0 + 1e-9]]])
    assert limit_of(products(within), within.mean(axis=0)[0], 1) is None


@pytest.mark.smoke
@pytest.mark.parametrize(("eta", "beyond"), [(0.1, False), (1.6, True)])
def test_a_comparison_tells_it_first(eta, beyond, load):
    study = study_of(
        load("linear_regression", **HADAMARD), dynamics=("sgd",), learning_rate=eta, num_seeds=200, num_steps=64,
        initial_scale=0.01, reference="none",
    )  # fmt: skip
    for found in (study.compare("sgd", 0.0), bvs.compare(study.trees["sgd"][0], None, study.target(study.scale))):
        assert found.reason.startswith(f"the learning rate {eta} is beyond 1.45") is beyond
        assert ("beyond" in found.reason) is beyond
