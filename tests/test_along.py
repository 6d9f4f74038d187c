"""Local learning coefficients and free energies at the checkpoints of a run."""

import numpy as np
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.along import _integral, along_training, lost_on_the_way

Z = stats.norm.isf(1e-6 / 2)
T = stats.t.isf(1e-3 / 2, 3)
"""Of an error that four chains tell, three times: 3 in 1,000 runs fail where all is right."""


@pytest.mark.law
def test_at_every_checkpoint_of_a_regression_they_are_gaussian_integrals(load, x64):
    """Prior and localisation are one Gaussian, pulled to another place at each checkpoint."""
    model = load("linear_regression", num_examples=60)
    beta, gamma = 0.3, 20.0
    start = {name: np.full((2, *shape), 2.0) for name, shape in model.latents}
    descent = bvs.GradientDescent(learning_rate=0.3)
    run = bvs.simulate(
        descent, bvs.Posterior(model), key=0, num_chains=2, num_steps=20, num_draws=5, initial=start,
        record_positions=True, progress=False,
    )  # fmt: skip
    target = bvs.Posterior(model, beta, localization=gamma)
    found = along_training(run, target, num_checkpoints=3, num_draws=600, progress=False)
    assert [point.step for point in found] == [4, 12, 20]
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    y = y.ravel()
    site = model.latents[0][0]
    for point, draw in zip(found, (0, 2, 4), strict=True):
        center = np.asarray(run["posterior"][site].values[0, draw], float).ravel()
        pulled = 1 + gamma
        precision, linear = pulled * np.eye(len(center)) + beta * x.T @ x, gamma * center + beta * x.T @ y
        mean, covariance = np.linalg.solve(precision, linear), np.linalg.inv(precision)
        nl = 0.5 * (np.sum((y - x @ mean) ** 2) + np.trace(x @ covariance @ x.T)) + len(x) * 0.5 * np.log(2 * np.pi)
        at_center = 0.5 * np.sum((y - x @ center) ** 2) + len(x) * 0.5 * np.log(2 * np.pi)
        local = point.learning_coefficient
        assert abs(local.value - beta * (nl - at_center)) < Z * local.standard_error
        spread = np.einsum("ni,ij,nj->n", x, covariance, x)
        exact = beta / 2 * np.sum((y - x @ mean) ** 2 * spread + spread**2 / 2)
        assert abs(point.singular_fluctuation.value - exact) < T * point.singular_fluctuation.standard_error
        assert point.singular_fluctuation.standard_error < 0.1 * exact
        log_ratio = 0.5 * linear @ mean - 0.5 * np.linalg.slogdet(precision)[1]
        log_ratio -= 0.5 * gamma**2 * center @ center / pulled - 0.5 * len(center) * np.log(pulled)
        exact = beta * (0.5 * y @ y + len(x) * 0.5 * np.log(2 * np.pi)) - log_ratio
        assert abs(point.free_energy.value - exact) < Z * point.free_energy.standard_error
        assert point.free_energy.standard_error < 0.02 * exact
        assert point.loss == pytest.approx(at_center / len(x))
        assert point.rhat < 1.05


@pytest.mark.law
def test_what_speaks_against_a_checkpoint_is_said(load, x64):
    """On the slope that training starts from the value is negative; one chain; NUTS, which no other sampler confirms."""
    model = load("linear_regression", num_examples=60)
    shared = {"key": 0, "num_chains": 2, "num_steps": 20, "num_draws": 20, "record_positions": True, "progress": False}
    start = {name: np.full((2, *shape), 2.0) for name, shape in model.latents}
    run = bvs.simulate(bvs.GradientDescent(learning_rate=0.3), bvs.Posterior(model), initial=start, **shared)
    target = bvs.Posterior(model, 0.3, localization=20.0)
    slope, end = along_training(run, target, num_checkpoints=2, num_draws=600, progress=False)
    assert any("negative: w* is no minimum" in warning for warning in slope.warnings)
    assert end.trusted, end.warnings
    (lonely,) = along_training(run, target, num_checkpoints=1, num_chains=1, num_draws=20, progress=False)
    assert any("one chain alone" in warning for warning in lonely.warnings)
    assert not lonely.trusted
    model = load("normal_crossing")
    run = bvs.simulate(bvs.GradientDescent(learning_rate=0.1), bvs.Posterior(model), **shared)
    target = bvs.Posterior(model, localization=20.0)
    (alone,) = along_training(run, target, num_checkpoints=1, num_chains=2, num_draws=20, progress=False)
    assert any("one sampler alone" in warning for warning in alone.warnings)


@pytest.mark.exact
def test_the_ladder_integrates_what_a_gaussian_has():
    """E_t = c / (1 + a t) with variance its derivative: log(1 + a) c / a, to the error that is printed."""
    ladder = (np.arange(13) / 12) ** 5
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(1 + 50 * ladder)
    energies = 25 * (scale[:, None, None] * rng.normal(size=(13, 4, 4000))) ** 2
    lost = np.zeros((13, 4), bool)
    found = _integral(energies, ladder, lost)
    assert abs(found.value - 0.5 * np.log(51)) < Z * found.standard_error
    assert found.standard_error < 0.1
    lost[3, 1], energies[3, 1] = True, np.nan
    found = _integral(energies, ladder, lost)
    assert abs(found.value - 0.5 * np.log(51)) < Z * found.standard_error
    assert lost_on_the_way(lost[:-1]) == [
        "1 of 48 chains of the warmer laws were lost: of the free energy they are left out"
    ]
    lost[3] = True
    assert np.isnan(_integral(energies, ladder, lost).value)
    assert lost_on_the_way(lost[:-1]) == ["all chains of a warmer law were lost: the free energy is not known"]


@pytest.mark.exact
def test_it_must_be_local_and_positions_must_be_there(tiny):
    run = bvs.simulate(bvs.GradientDescent(0.1), bvs.Posterior(tiny), key=0, num_steps=4, progress=False)
    with pytest.raises(bvs.InputError, match="give --localization"):
        along_training(run, bvs.Posterior(tiny))
    with pytest.raises(bvs.InputError, match="positions lack"):
        along_training(run, bvs.Posterior(tiny, localization=10.0))
