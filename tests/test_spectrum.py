"""Temperatures of the modes at a minimum: one under Bayes, in proportion to the curvature under SGD."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.comparison.spectrum import hessian_modes, mode_temperatures, spectrum_at_minimum, unit_scale
from bayes_vs_sgd.curvature import hessian
from bayes_vs_sgd.settings import Compare

SEEDS = 4000
Z = 4.9
"""Standard errors that a normal law passes once in a million cases."""


def gaussian_spectrum(load, temperatures, prior_scale=2.0):
    """Of exact draws around the minimum of a regression, with a temperature for each mode."""
    model = load("linear_regression", prior_scale=prior_scale)
    study = bvs.Study(model)
    target, modes = bvs.Posterior(model), hessian_modes(bvs.Posterior(model), study.minimum)
    temperatures = temperatures(modes.eigenvalues)
    precision = modes.eigenvalues / temperatures + prior_scale**-2
    center = modes.vectors.T @ np.asarray(study.minimum.position["w"], float)
    mean = (modes.eigenvalues / temperatures) * center / precision
    along = mean + np.random.default_rng(0).normal(size=(SEEDS, 5)) / np.sqrt(precision)
    drawn = {"w": (along @ modes.vectors.T)[:, None]}
    return mode_temperatures("exact", bvs.from_positions(drawn, target), target, modes, 1.0), temperatures


@pytest.mark.law
@pytest.mark.parametrize(
    ("temperatures", "slope"),
    [(lambda h: np.full_like(h, 0.05), 0), (lambda h: 0.02 * h, 1), (lambda h: 0.02 * np.sqrt(h), 0.5)],
    ids=["Bayes", "SGD", "Adam"],
)
def test_exact_draws_have_their_temperatures(load, temperatures, slope):
    """The prior is strong enough to matter, and belongs to the law: it is not tempered."""
    found, wanted = gaussian_spectrum(load, temperatures)
    np.testing.assert_array_less(np.abs(np.log(found.temperatures / wanted)), Z * found.log_errors)
    assert abs(found.slope - slope) < Z * found.slope_error
    assert found.slope_error < 0.02


@pytest.mark.law
def test_without_the_prior_term_hot_flat_modes_would_look_cold(load):
    """Planted bug: the identity of a law without a prior, E[d_i v_i . grad L] = T_i."""
    found, wanted = gaussian_spectrum(load, lambda h: np.full_like(h, 0.5), prior_scale=0.5)
    np.testing.assert_array_less(np.abs(np.log(found.temperatures / wanted)), Z * found.log_errors)
    model = load("linear_regression", prior_scale=1e6)
    minimum = bvs.Study(model).minimum
    target = bvs.Posterior(model)
    modes = hessian_modes(target, minimum)
    precision = modes.eigenvalues / 0.5 + 4
    along = np.random.default_rng(0).normal(size=(SEEDS, 5)) / np.sqrt(precision)
    drawn = {"w": (np.asarray(minimum.position["w"]) + along @ modes.vectors.T)[:, None]}
    bug = mode_temperatures("bug", bvs.from_positions(drawn, target), target, modes, 1.0)
    assert np.log(bug.temperatures[-1] / 0.5) < -Z * bug.log_errors[-1]


@pytest.mark.law
def test_a_spectrum_is_a_function_of_the_tree(load):
    """Of exact draws at 1 / (n beta), the scale of their own target: all modes at 1."""
    model = load("linear_regression")
    target = bvs.Posterior(model, 0.3)
    draws = bvs.simulate(
        model.exact_sampler, target, key=0, num_chains=SEEDS, num_draws=1, num_warmup=5, progress=False
    )
    found = bvs.temperature_spectrum(draws)
    np.testing.assert_array_less(np.abs(np.log(found.temperatures)), Z * found.log_errors)
    assert found.predicted_slope == 0
    settings = {"num_chains": 200, "num_steps": 200, "initial": "optimum", "progress": False}
    sgd = bvs.simulate(bvs.SGD(0.01, 8), target, key=0, **settings)
    shuffled = bvs.simulate(bvs.SGD(0.01, 8, sampling="shuffled"), target, key=0, **settings)
    assert bvs.temperature_spectrum(shuffled).predicted_slope is None  # what an epoch cancels is not in C
    assert bvs.temperature_spectrum(sgd).predicted_slope == pytest.approx(1, abs=0.1)  # C = H up to n = 1024 residuals


@pytest.mark.law
@pytest.mark.slow
def test_the_priors_pull_in_the_objective_leaves_the_modes_where_they_are(load):
    """It belongs to the law. Planted bug: weighed by the n beta of the unit, 8 times too small, it heats the flat modes."""
    model = load("linear_regression", covariance=(2.0, 1.0, 0.5), noise=3.0)

    def found(objective):
        return spectrum_at_minimum(bvs.Study(model, Compare(objective=objective), progress=False), "sgd")

    plain, pulled = found("loss"), found("posterior")
    gap = np.abs(np.log(pulled.temperatures / plain.temperatures))
    np.testing.assert_array_less(gap, Z * np.hypot(plain.log_errors, pulled.log_errors))
    study = bvs.Study(model, Compare(objective="posterior"), progress=False)
    study.scale = unit_scale(study)
    wrong = spectrum_at_minimum(study, "sgd")
    assert np.log(wrong.temperatures[-1] / plain.temperatures[-1]) > Z * np.hypot(
        *(s.log_errors[-1] for s in (plain, wrong))
    )


@pytest.mark.exact
def test_hessian_modes_are_those_of_the_closed_form(load):
    """B1 at depth 2: s_i + s_j for balanced layers, over noise^2."""
    model = load("deep_linear", unseen_inputs=0, noise=1.0, noise_free=True)
    modes = hessian_modes(bvs.Posterior(model), bvs.Study(model).minimum)
    expected = sorted((a + b for a in (2.0, 1.0, 0.4) for b in (2.0, 1.0, 0.4)), reverse=True)
    np.testing.assert_allclose(modes.eigenvalues, expected, rtol=1e-4)  # float32, minimum by L-BFGS
    np.testing.assert_allclose(modes.trace, sum(expected), rtol=1e-4)


CASES = {
    "regression": ("linear_regression", {"covariance": (3.0, 1.0, 0.4, 0.3), "prior_scale": 30.0, "rotated": True}),
    "depth 2": ("deep_linear", {"noise": 1.0, "unseen_inputs": 0, "spectrum": (3.0, 1.5, 0.7)}),
    "depth 3": ("deep_linear", {"noise": 1.0, "unseen_inputs": 0, "widths": (3,) * 4, "spectrum": (1.6, 1.0, 0.6)}),
}


def study_of(load, case, **settings):
    name, config = CASES[case]
    return bvs.Study(load(name, data_seed=3, **config), Compare(num_seeds=8000, **settings), seed=5, progress=False)


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_claims_of_the_figure_at_other_settings(load, case):
    """Half the figure's learning rate, other data. Slopes within .05 of 0 and 1.

    Excess loss within 3 % of half the modes (Langevin) and of half the trace (SGD), above by at most the step's own
    effect: eta h / 2 = 2.5 % for Langevin, and eta h (1 + (d + 1)/B)/2 = 4 % for SGD at the sharpest mode.
    """
    study = study_of(load, case)
    study = study_of(load, case, learning_rate=study.learning_rate / 2)
    langevin, sgd, momentum = (spectrum_at_minimum(study, name) for name in ("sgld", "sgd", "sgd-momentum"))
    assert abs(langevin.slope) < 0.05
    assert abs(sgd.slope - 1) < 0.05
    assert abs(momentum.slope - 1) < 0.05
    half = len(langevin.eigenvalues) / 2
    assert 0.97 < langevin.excess / half < 1.03 * 1.025
    assert 0.97 < sgd.excess / sgd.half_trace < 1.03 * 1.04


@pytest.mark.law
@pytest.mark.slow
def test_preconditioned_sgd_has_one_temperature_and_adam_half_the_slope(load):
    """With P the inverse of the noise covariance, C = H here, all directions are shaken alike: P C P is proportional to P."""
    study = study_of(load, "regression")
    inverse = np.linalg.inv(np.asarray(hessian(study.model, study.minimum.position), float))

    def natural(learning_rate):
        precondition = optax.stateless(lambda gradient, _: {"w": jnp.asarray(inverse, float) @ gradient["w"]})
        return optax.chain(precondition, optax.sgd(learning_rate))

    found = spectrum_at_minimum(study, "natural gradient", bvs.Optimizer(natural, 8, learning_rate=0.05))
    assert abs(found.slope) < 0.05
    axes = bvs.Study(load("linear_regression", prior_scale=30.0), Compare(num_seeds=8000), progress=False)
    assert abs(spectrum_at_minimum(axes, "adam").slope - 0.5) < 0.1


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "config", "dynamics", "message"),
    [
        ("product", {}, "sgld", "the Hessian at the minimum is zero"),
        ("deep_linear", {"noise_free": True, "noise": 1.0}, "sgd", "every mode is at temperature 0"),
    ],
)
def test_where_there_is_no_spectrum_it_is_said(load, name, config, dynamics, message):
    study = bvs.Study(load(name, **config), Compare(num_seeds=20), progress=False)
    with pytest.raises(bvs.InputError, match=message):
        spectrum_at_minimum(study, dynamics)
    with pytest.warns(UserWarning, match=f"no temperature spectrum of {dynamics}: .*{message}"):
        assert study.spectrum(dynamics) is None
