"""The controls that a comparison must classify: where SGD is Bayesian and where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.plan import Walk
from bayes_vs_sgd.comparison.temperature import stein_terms
from bayes_vs_sgd.curvature import example_gradients
from bayes_vs_sgd.settings import Compare

pytestmark = [pytest.mark.law, pytest.mark.slow]
MATCHES = ("match", "match-within-margins")
"""With 4,000 seeds the global tests may see the finite step, which the margins allow."""


def comparison(model, name, tmp_path, deadline=0.0, **settings):
    """Double the steps until stationary, or not at all with a deadline of 0."""
    settings = Compare(dynamics=(name,), **settings)
    return bvs.Study(model, settings, 0, tmp_path, progress=False).compare(name, deadline)


def test_full_batch_langevin_dynamics_matches(load, tmp_path):
    # At a quarter of the seeds an effect near .02 beside a margin of .1 is left unresolved every few runs.
    settings = {"initial_scale": 1.0, "num_steps": 8000, "num_seeds": 8000}
    found = comparison(load("deep_linear"), "sgld", tmp_path, float("inf"), **settings)
    assert found.stationary
    assert found.verdicts == {"function": "match", "geometry": "match", "off_data": "match"}
    beta = found.inverse_temperature
    expected, error = euler_inverse_temperature(load("deep_linear"), settings)
    assert 0.95 * beta["used"] < expected < 0.98 * beta["used"]  # twenty times the error of ignoring the step
    assert beta["fitted"] == pytest.approx(expected, abs=4 * np.hypot(error, beta["fitted_standard_error"]))


def euler_inverse_temperature(model, settings):
    """What Stein's identity fits to Langevin's own law of step eps, to first order, and its standard error.

    E_eps f = E f + eps Cov(f, |grad U|^2/4 - tr U''/2), U = -log p: with the generator's second term A f = f_ij U_i U_j/2 -
    U_i d_i f_jj + f_iijj/2, E[A f] = E[f_ij U_ij]/2 = E[grad f . grad (|grad U|^2/2 - tr U'')]/2 by parts.
    """
    study = bvs.Study(model, Compare(dynamics=("sgld",), **settings))
    target, step = study.target(study.scale), study.dynamics("sgld").step_size
    wanted = {"num_chains": 64, "num_draws": 400, "num_warmup": 200, "record_positions": True, "progress": False}
    draws = bvs.simulate(model.exact_sampler, target, key=1, **wanted)["posterior"].to_dataset()
    positions = {name: jnp.asarray(draws[name].values.reshape(-1, *shape)) for name, shape in model.latents}

    @jax.jit
    def weight(position):
        vector = target.flat(position)
        gradient = jax.grad(lambda v: -target.log_density(target.unflat(v)))
        return jnp.sum(gradient(vector) ** 2) / 4 - jnp.trace(jax.jacfwd(gradient)(vector)) / 2

    weights = np.asarray(jax.lax.map(weight, positions, batch_size=256), float).reshape(64, -1)
    terms = stein_terms(target, positions)["loss"]
    above, below = terms.prior.reshape(64, -1), terms.loss.reshape(64, -1)

    def fitted(kept):
        shift = float(step) * (weights[kept] - weights[kept].mean())
        return np.mean(above[kept] * (1 + shift)) / np.mean(below[kept] * (1 + shift)) / model.num_examples

    without = [fitted(np.arange(64) != chain) for chain in range(64)]
    return fitted(slice(None)), np.sqrt(63 * np.var(without))


def test_sgd_on_isotropic_regression_matches_at_the_theoretical_temperature(load, tmp_path):
    """Exact for Hadamard data: T = T0 / (1 - eta h (1 + (d - 1)/B)/2), from the fourth moment E[xx'Sxx'] = tr(S) xx'."""
    model = load("linear_regression", isotropic=True, covariance=(1.0,) * 4, num_examples=256, prior_scale=30.0)
    study = bvs.Study(model, Compare())
    target, batch = study.target(study.scale), study.settings.batch_size
    curvature = 0.1 / study.learning_rate
    factor = 1 - study.learning_rate * curvature * (1 + (model.num_parameters - 1) / batch) / 2
    beta = study.scale * factor / model.num_examples
    found = comparison(model, "sgd", tmp_path / "theory", float("inf"), inverse_temperature=beta, num_seeds=8000)
    assert found.stationary
    assert found.verdict in MATCHES, found.reason
    fitted = comparison(model, "sgd", tmp_path / "fitted", float("inf"), num_seeds=8000)
    assert fitted.verdict in MATCHES, fitted.reason
    error = fitted.inverse_temperature["fitted_standard_error"]
    assert fitted.inverse_temperature["used"] == pytest.approx(beta, abs=4 * error)
    assert target.model is model


def test_sgd_on_anisotropic_regression_is_a_mismatch_whatever_the_temperature(load, tmp_path):
    model = load("linear_regression", covariance=(1.0, 0.5, 0.2, 0.1), inputs="gaussian", prior_scale=30.0)
    found = comparison(model, "sgd", tmp_path)
    assert found.verdicts["function"] == "mismatch"
    assert "anisotropy" in found.reason


def test_two_wells_are_a_mismatch(load, tmp_path):
    model = load("polynomial", num_examples=100, label_noise=1.0)
    found = comparison(model, "sgd", tmp_path, inverse_temperature=1.0, initial_scale=1.0, learning_rate=0.01)
    assert found.verdict == "mismatch"
    assert "stays in its well" in found.reason


def test_gradient_descent_from_a_narrow_start_is_not_the_posterior_on_the_fibre(load, tmp_path):
    """S5 at s0 = .5: zero loss is temperature 0, so the reference is a large fixed beta and the loss does not decide."""
    model = load("deep_linear", widths=(1, 4, 1), spectrum=(1.0,), noise=1.0, noise_free=True)
    settings = {"inverse_temperature": 0.4, "initial_scale": 0.5, "observables": ("total_norm", "prediction_unseen")}
    found = comparison(model, "gradient-descent", tmp_path, **settings)
    assert found.verdict == "mismatch"
    same = comparison(model, "gradient-descent", tmp_path / "wide", **{**settings, "initial_scale": 1.0})
    assert same.verdicts["off_data"] == "match", same.reason


@pytest.mark.parametrize("seed", range(3))
def test_label_noise_has_a_gamma_law_where_bayes_has_a_bessel_law(load, seed):
    """Two equal weights under label noise: dz = 2 z (s - z) dt + c z dt + 2 z sqrt(c) dW in units of 1 / (eta h).

    Stationary: Gamma(s/c - 1/2, c), c = eta sigma^2 / n (h = 1). Bayes' law is K0(|z|) exp(-(b/2) (z - s)^2), at any b another.
    """
    model, rate, c, number = load("product", target=1.0, num_examples=20), 0.02, 0.2, 8000
    dynamics = bvs.SGD(rate, sampling=bvs.LabelNoise(float(np.sqrt(c * model.num_examples / rate))))
    settings = Compare(dynamics=("sgd",), num_steps=int(20 / rate), num_seeds=number, learning_rate=rate)
    study = bvs.Study(model, settings, seed, progress=False)
    weight = np.sqrt(np.random.default_rng(seed).gamma(1 / c - 0.5, c, size=number))
    study.own["sgd"] = Walk(dynamics, {"w1": weight, "w2": weight})
    found = study.compare("sgd", 0.0)
    products = study.trees["sgd"][0]["posterior"]["mode_1"].values[:, -1]
    assert stats.kstest(products, stats.gamma(1 / c - 0.5, scale=c).cdf).pvalue > 1e-6
    without_ito = stats.gamma(1 / c, scale=c)  # the planted mistake: noise in the middle of the step
    assert stats.kstest(products, without_ito.cdf).pvalue < 1e-6
    assert found.verdicts["function"] == "mismatch"
    assert "flat directions: root_imbalance_norm spread is 0.00 times" in found.reason  # two weights as one
    assert "no temperature fits" in found.reason


def test_excess_loss_is_lambda_for_langevin_and_half_the_trace_for_sgd(load, tmp_path):
    """At T0 = eta s^2 / 2B: SGD to leading order (n beta0 eta / 4B) tr C, and tr C = tr H where the model is right.

    At eta x sharpness = .1 the finite step adds up to 1/(1 - .1 (1 + (d + 1)/B)/2) - 1 = 7 % at d = 3. Langevin's own
    step adds 2.5 %, three standard errors are 3.3 %.
    """
    model = load("deep_linear", noise=1.0, spectrum=(2.0, 1.0, 0.4))
    study = bvs.Study(model, Compare())
    scale = 2 * study.settings.batch_size / study.learning_rate
    gradients = np.asarray(example_gradients(model, study.minimum.position), float)
    squares = np.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1) / 2
    half_trace, trace_error = squares.mean(), squares.std() / np.sqrt(len(squares))
    assert half_trace == pytest.approx(10.2, abs=4 * trace_error)
    sgd = comparison(model, "sgd", tmp_path / "sgd", num_steps=4000)
    ratio = scale / study.scale
    value, error = (sgd.learning_coefficient[k] * ratio for k in ("value", "standard_error"))
    assert half_trace - 5 * error < value < half_trace * (1 + 0.1) + 5 * error
    hot = {"inverse_temperature": scale / model.num_examples, "initial_scale": 1.0, "num_steps": 8000}
    langevin = comparison(model, "sgld", tmp_path / "sgld", **hot)
    assert langevin.learning_coefficient["value"] == pytest.approx(4.5, rel=0.06)
