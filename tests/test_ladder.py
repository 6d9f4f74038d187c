"""What the ladder of temperatures and the particles at its end tell, against quadrature on the product of two weights."""

import jax
import numpy as np
import pytest
from conftest import MODELS
from scipy import stats
from scipy.interpolate import CubicHermiteSpline
from scipy.special import k0, k1
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.ladder import LEAST_PRECISION, NUM_POINTS, EnergyCurve, learning_coefficient_and_multiplicity
from bayes_vs_sgd.tempered import Ladder

RATE = 1e-6
NUM_REPLICATES = 8
SPREADS = np.array([0.0271, 0.191])
"""Of lambda and m, from one replicate of 2,000 particles to another, as 64 of them have it."""


def excess(precision):
    """N E_N[K] of K = (w_1 w_2)^2 / 2 under standard normal priors: Z = exp(1/4N) K_0(1/4N) / sqrt(2 pi N)."""
    u = 1 / (4 * np.asarray(precision))
    return 0.5 + u * (1 - k1(u) / k0(u))


def exact_fit(top):
    """Line through the exact values on the upper half of the ladder, in log N."""
    scale = np.geomspace(np.sqrt(LEAST_PRECISION * top), top, NUM_POINTS)
    slope, intercept = np.polyfit(1 / np.log(scale), excess(scale), 1)
    return intercept, 1 - slope


@pytest.fixture(scope="module")
def found():
    """Truth 0, labels whose noise is orthogonal to the inputs, so that nothing of it is fitted."""
    with jax.enable_x64(True):
        model = bvs.load_model(MODELS / "product.py", num_examples=10_000)
        yield model, bvs.free_energy(model, num_particles=2000, num_replicates=NUM_REPLICATES)


def within(estimate, exact, num_replicates=NUM_REPLICATES):
    return abs(estimate.value - exact) < stats.t.isf(RATE / 2, num_replicates - 1) * estimate.standard_error


def moments(model, num_points=20_001):
    """Posterior density of z = w_1 w_2 on points with weights, and the examples."""
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    half = np.geomspace(1e-12, 12 / np.sqrt(x @ x), num_points)  # trapezoid rule in log z, on either side of the pole
    z = np.concatenate([-half[::-1], half])
    density = k0(np.abs(z)) * np.exp(-0.5 * ((x @ x) * z**2 - 2 * (x @ y) * z)) * np.abs(z)
    return x, y, z, density / density.sum()


@pytest.mark.law
def test_lambda_and_m_are_those_of_the_exact_ladder(found):
    """Which at n = 10,000 are .48 and 1.7 where the limits are .5 and 2: the known ones lie within the interval."""
    _, free = found
    assert free.fitted_up_to == 10_000
    exact = exact_fit(1e4)
    assert within(free.learning_coefficient, exact[0])
    assert within(free.multiplicity, exact[1])
    values = [free.learning_coefficient.value, free.multiplicity.value]
    errors, detects = SPREADS / np.sqrt(NUM_REPLICATES), [0.09, 0.6]
    assert_mean(values, errors, expected=exact, detects=detects)
    constant = excess(np.geomspace(np.sqrt(LEAST_PRECISION * 1e4), 1e4, NUM_POINTS)).mean()
    with planted_bug():  # no term in 1/log N
        assert_mean(values, errors, expected=(constant, 1.0), detects=detects)


@pytest.mark.law
def test_cumulants_wbic_and_variances_are_those_of_quadrature(found):
    model, free = found
    x, y, z, weights = moments(model)
    energy = 0.5 * (x @ x) * z**2  # x'y = 0
    mean = weights @ energy
    exact = [mean, *(weights @ (energy - mean) ** order for order in (2, 3, 4))]
    exact[3] -= 3 * exact[1] ** 2
    for estimate, value in zip(free.cumulants, exact, strict=True):
        assert within(estimate, value)
    n, best = len(x), float(model.num_examples * free.baseline["value"])
    assert within(free.wbic, best + np.log(n) * float(excess(n / np.log(n))))
    product, square = weights @ z, weights @ z**2
    cross, fourth = weights @ z**3 - product * square, weights @ z**4 - square**2
    variances = x**2 * y**2 * (square - product**2) + x**4 / 4 * fourth - x**3 * y * cross
    assert within(free.functional_variance, variances.sum())
    assert free.singular_fluctuation.value == pytest.approx(free.functional_variance.value / 2)
    coarse, share = moments(model, 2001)[2:]
    seen = np.exp(-0.5 * (y[:, None] - x[:, None] * coarse) ** 2) @ share
    assert within(free.waic, (0.5 * np.log(2 * np.pi) - np.log(seen) + variances).mean())
    few = slice(0, 200)
    losses = 0.5 * (y[few, None] - x[few, None] * z) ** 2
    predictive = -np.log(np.exp(-losses) @ weights)
    from bayes_vs_sgd.predictive import predictive as estimated

    seen = [estimated(bvs.Posterior(model), run.particles, run.weights).losses[few] for run in free.ladders]
    off = np.mean(seen, axis=0) - 0.5 * np.log(2 * np.pi) - predictive
    # All examples see the same error of the posterior's moments: six standard errors of the worst.
    assert np.abs(off).max() < 6 * np.std(seen, axis=0, ddof=1).max() / np.sqrt(len(seen)) < 4e-3


@pytest.mark.exact
def test_the_mean_energy_is_known_between_the_points_of_a_ladder():
    """Of a Gaussian, at eight points as stages would have them; a cubic in t itself is off by a third of a nat."""
    rates, least = np.array([3.0, 40.0, 2000.0]), 700.0

    def energy(t):
        return least + (rates / 2 / (1 + np.multiply.outer(t, rates))).sum(axis=-1)

    t = np.concatenate([[0.0], np.geomspace(3e-4, 1, 7)])
    variances = (rates**2 / 2 / (1 + np.multiply.outer(t, rates)) ** 2).sum(axis=-1)
    exact = least + 0.5 * np.log1p(rates).sum()
    curve = EnergyCurve(t, energy(t), variances)
    assert curve.integral() == pytest.approx(exact, abs=0.01)
    for at in (1e-4, 0.01, 0.5):
        assert curve(at) - least == pytest.approx(energy(at) - least, rel=0.01)
    cubic = CubicHermiteSpline(t, energy(t), -variances)
    assert abs(cubic.integrate(0, 1) - exact) > 0.3


@pytest.mark.exact
@pytest.mark.parametrize("slope", [0.0, 1e-9, 2.0])
def test_an_energy_that_is_linear_in_t_is_integrated_too(slope):
    """Also one that does not fall at all, whose draws all have it."""
    t = np.linspace(0, 1, 5)
    curve = EnergyCurve(t, 5 - slope * t, np.full(5, slope))
    assert curve.integral() == pytest.approx(5 - slope / 2, abs=1e-3 * max(slope, 1e-6))
    assert curve(0.3) == pytest.approx(5 - 0.3 * slope, abs=1e-3 * max(slope, 1e-6))
    for first in (-slope - 1e-3, slope * 1e-12):  # errors of a mean, and of a variance
        energies, variances = np.append(5 + first, 5 - slope * t[1:]), np.append(slope * 1e-9, np.full(4, slope))
        assert EnergyCurve(t, energies, variances).integral() == pytest.approx(5 - slope / 2, abs=0.02 + slope / 8)


@pytest.mark.exact
def test_the_fit_recovers_a_ladder_of_the_asymptotic_form():
    """And is none where N reaches less than 27, or of another law where the noise of the labels is fitted."""
    n, beta, best = 10_000, 1.0, 3.0
    t = np.concatenate([[0.0], np.geomspace(1e-5, 1, 400)])
    scale = np.maximum(n * t, 1e-9)
    asymptotic = np.where(scale > 5, 3.5 - 1 / np.log(np.maximum(scale, 5)), 1.0)
    mean = -(best + asymptotic / np.maximum(t, 1e-9))
    variance = np.gradient(mean, t)
    run = Ladder(0.0, t, mean, variance, *3 * [t[:-1]], np.zeros((1, 1, 1)), 0.0, np.zeros((1, 1)), np.ones(1))
    value, multiplicity, change, _ = learning_coefficient_and_multiplicity(run, beta, n, best, np.inf)
    assert value == pytest.approx(3.5, abs=1e-3)
    assert multiplicity == pytest.approx(2, abs=1e-2)
    assert abs(change) < 1e-3
    assert learning_coefficient_and_multiplicity(run, beta, n, best, 20.0) is None
    shifted = learning_coefficient_and_multiplicity(run, beta, n, best - 1.0, np.inf)
    assert abs(shifted[0] - 3.5) > 0.1  # a wrong baseline is not absorbed


@pytest.mark.law
def test_a_localised_law_has_an_evidence_too(load, x64):
    """Regression pulled to a point: Gaussian integrals."""
    model = load("linear_regression", num_examples=50)
    target = bvs.Posterior(model, 1.0, localization=30.0)
    x, y = (np.asarray(model.data[name], float) for name in "xy")
    center = np.asarray(next(iter(model.optimum.values())), float).ravel()
    precision = np.eye(len(center)) * (1 + 30.0) + x.T @ x
    linear = x.T @ y.ravel() + 30.0 * center
    constant = -0.5 * len(x) * np.log(2 * np.pi) - 0.5 * (y.ravel() @ y.ravel() + 30.0 * center @ center)
    exact = constant + 0.5 * linear @ np.linalg.solve(precision, linear) - 0.5 * np.linalg.slogdet(precision)[1]
    found = bvs.free_energy(target, num_particles=1000)
    assert within(found.log_evidence, exact, num_replicates=4)
    assert abs(found.log_evidence.value - exact) < 0.1
    assert found.learning_coefficient is None
