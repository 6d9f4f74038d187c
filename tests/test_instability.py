"""Learning rates beyond stability are told as such."""

import jax.numpy as jnp
import numpy as np
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import regression
from bayes_vs_sgd.comparison.instability import instability
from bayes_vs_sgd.mean_square import growth, limit_of, mean_square_limit
from bayes_vs_sgd.settings import Compare

HADAMARD = {"isotropic": True, "covariance": (1.0,) * 4, "num_examples": 256, "prior_scale": 30.0}
"""Inputs x_i^2 = 1 and H = I: of batches of B the mean square is bounded below 2 / (1 + 3/B), the mean below 2 (1 + mu)."""


def study_of(model, **settings):
    return bvs.Study(model, Compare(**settings), progress=False)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("dynamics", "said"),
    [
        (bvs.SGD(1.45, 8), ""),
        (bvs.SGD(1.46, 8), "1.46 is beyond 1.45, the limit of mean-square stability"),
        (bvs.SGD(2.01, 8), "2.01 is beyond 2, where the linearised dynamics"),
        (bvs.GradientDescent(1.99), ""),
        (bvs.GradientDescent(2.01), "2.01 is beyond 2,"),
        (bvs.SGD(2.9, 8, momentum=0.5), ""),
        (bvs.SGD(3.1, 8, momentum=0.5), "3.1 is beyond 3,"),
        (bvs.SGD(1.51, 8, momentum=0.5, nesterov=True), "1.51 is beyond 1.5,"),
        (bvs.Adam(3.0, 8), ""),
    ],
)
def test_what_is_beyond_which_limit(dynamics, said, load):
    found = instability(study_of(load("linear_regression", **HADAMARD)), dynamics)
    assert said in found
    assert bool(found) is bool(said)


@pytest.mark.exact
def test_the_growth_is_that_of_the_second_moments(x64):
    """Of one weight and inputs a, b it is 1 - 2 eta h + eta^2 (h^2 + v/B); batches all alike (planted) leave v out."""
    squares = np.array([0.5, 3.5])
    model = regression(np.sqrt(squares)[:, None], np.zeros(2))
    h, v, eta = squares.mean(), squares.var(), 0.8
    exact = 1 - 2 * eta * h + eta**2 * (h**2 + v / 2)
    within, values = squares[:, None, None], np.array([h])
    assert growth(within, values, 2, eta) == pytest.approx(exact)
    assert growth(within, values, np.inf, eta) == pytest.approx((1 - eta * h) ** 2) != pytest.approx(exact)
    limit = 2 * h / (h**2 + v / 2)
    assert mean_square_limit(bvs.Posterior(model), {"w": jnp.zeros(1)}, 2) == pytest.approx(limit, rel=1e-5)


@pytest.mark.exact
def test_examples_that_bend_while_their_mean_does_not_have_no_limit():
    within = np.array([[[1.0]], [[-1.0 + 1e-9]]])
    assert limit_of(within, within.mean(axis=0)[0], 1) is None


@pytest.mark.smoke
@pytest.mark.parametrize(("eta", "beyond"), [(0.1, False), (1.6, True)])
def test_a_comparison_tells_it_first(eta, beyond, load):
    study = study_of(
        load("linear_regression", **HADAMARD), dynamics=("sgd",), learning_rate=eta, num_seeds=200, num_steps=64,
        initial_scale=0.01, reference="none",
    )  # fmt: skip
    found = study.compare("sgd", 0.0)
    assert found.reason.startswith(f"the learning rate {eta} is beyond 1.45") is beyond
    assert ("beyond" in found.reason) is beyond
