"""Expected log predictive density of held-out examples, against the closed form of Bayesian regression."""

import numpy as np
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.prediction import Predictive, held_out_prediction, log_likelihoods, predictives

Z = 4.9
"""Standard errors that a normal law passes once in a million cases."""
BETA = 0.02


@pytest.fixture(scope="module")
def regression():
    """A regression with few data, draws of its posterior, and what is known of it: mean and covariance of the weights."""
    from conftest import MODELS

    model = bvs.load_model(MODELS / "linear_regression.py", num_examples=64, num_held_out=200)
    target = bvs.Posterior(model, BETA)
    settings = {"num_chains": 8, "num_draws": 500, "num_warmup": 5, "record_positions": True, "progress": False}
    tree = bvs.simulate(model.exact_sampler, target, key=0, **settings)
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    covariance = np.linalg.inv(BETA * x.T @ x + np.eye(5))
    return target, tree, covariance @ (BETA * x.T @ y), covariance


@pytest.mark.law
def test_bayes_predicts_as_the_closed_form_does(regression):
    """N(x'm, 1 + x'Vx) at each held-out x; a planted bug, the average of log densities, is seen."""
    target, tree, mean, covariance = regression
    x, y = (np.asarray(target.model.held_out[name], float) for name in "xy")
    exact = stats.norm.logpdf(y, x @ mean, np.sqrt(1 + np.einsum("ij,jk,ik->i", x, covariance, x)))
    pooled, single = predictives(*log_likelihoods(tree, target))
    known = Predictive(exact, np.zeros((1, 2)), True)  # without error of draws
    gap, error = pooled.less(known)
    assert error < 0.01
    assert abs(gap) < Z * error
    wrong, error = single.less(known)
    assert wrong < -Z * error


@pytest.mark.law
def test_the_error_of_the_draws_is_their_spread():
    """Over 400 repetitions, standard errors agree with the spread, whose relative error is 1 / sqrt(800)."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        found, _ = predictives(-0.5 * (rng.normal(size=(300, 1, 1)) * np.ones(5) - np.arange(5) / 4) ** 2, True)
        means.append(found.densities.mean())
        errors.append(found.less(Predictive(found.densities, np.zeros((1, 2)), True))[1])
    assert np.std(means) / np.mean(errors) == pytest.approx(1, abs=Z / np.sqrt(800))


@pytest.mark.smoke
def test_an_ensemble_needs_no_recorded_positions_and_long_chains_do(regression):
    target, tree, *_ = regression
    ensemble = bvs.simulate(bvs.SGD(0.01, 8), target, key=0, num_chains=150, num_steps=100, progress=False)
    found = held_out_prediction(ensemble, tree, target)
    assert found["num_examples"] == 200
    assert found["ensemble"]["value"] > found["single"]["value"]
    assert found["ensemble_less_bayes"]["standard_error"] < found["bayes"]["standard_error"]
    few = bvs.simulate(bvs.SGD(0.01, 8), target, key=0, num_chains=4, num_steps=100, progress=False)
    assert held_out_prediction(few, tree, target) is None
    assert float(bvs.compare(ensemble, tree).held_out["bayes"]["value"]) == found["bayes"]["value"]


@pytest.mark.exact
def test_held_out_examples_are_of_the_kind_of_the_data(tiny):
    data = {"x": np.zeros((5, 3)), "y": np.zeros((5, 3))}
    with pytest.raises(bvs.InputError, match="held-out examples have shapes"):
        bvs.Model(tiny.program.function, tiny.data, held_out=data)
    with pytest.raises(bvs.InputError, match="give at least two"):
        bvs.Model(tiny.program.function, tiny.data, held_out={k: v[:1] for k, v in tiny.data.items()})
    assert tiny.at({k: np.zeros(s) for k, s in tiny.latents}).held_out is not None
