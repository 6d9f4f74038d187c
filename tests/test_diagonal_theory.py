"""Limits of descent on diagonal networks against SciPy's integrator, loops by hand, and the two extreme norms."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import linprog

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.diagonal_networks import (
    expected_shrinkage,
    flow_limit,
    gains,
    interpolator,
    small_step_scale,
)

INPUTS, LABELS = np.array([[1.0, 2.0, -0.5]]), np.array([1.5])
RNG = np.random.default_rng(0)
WIDE, VALUES = RNG.normal(size=(3, 8)), RNG.normal(size=3)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.01, (0.008633, 0.745454, -0.000918)),
        (0.1, (0.082620, 0.702316, -0.025496)),
        (1, (0.283587, 0.572847, -0.141440)),
        (10, (0.285714, 0.571429, -0.142857)),
    ],
)
def test_numbers_of_the_notes(scale, expected):
    np.testing.assert_allclose(flow_limit(INPUTS, LABELS, scale), expected, atol=6e-7)


@pytest.mark.exact
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_gradient_flow_ends_there(scale):
    def flow(t, weights):
        u, v = np.split(weights, 2)
        slope = WIDE.T @ (WIDE @ (u**2 - v**2) - VALUES)
        return np.concatenate([-2 * u * slope, 2 * v * slope])

    found = solve_ivp(flow, (0, 300), np.full(16, scale), method="LSODA", rtol=1e-10, atol=1e-13)
    u, v = np.split(found.y[:, -1], 2)
    np.testing.assert_allclose(flow_limit(WIDE, VALUES, scale), u**2 - v**2, atol=1e-7)


@pytest.mark.exact
def test_extreme_scales_are_extreme_norms():
    """Least squares for large alpha; least l1 norm for small, at the rate 1 / log(1 / alpha)."""
    least = np.linalg.lstsq(WIDE, VALUES, rcond=None)[0]
    np.testing.assert_allclose(flow_limit(WIDE, VALUES, 1e3), least, atol=1e-6)
    smallest = linprog(np.ones(16), A_eq=np.hstack([WIDE, -WIDE]), b_eq=VALUES, bounds=(0, None)).fun
    excess = [np.sum(np.abs(flow_limit(WIDE, VALUES, a))) / smallest - 1 for a in (1e-2, 1e-5, 1e-10)]
    assert excess[0] > excess[1] > excess[2] > -1e-12
    assert excess[2] < 0.03


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(5))
def test_every_solution_fits_and_lies_in_the_span(seed):
    """For scales of each sign and coordinate between 1e-6 and 10."""
    rng = np.random.default_rng(seed)
    x, y, (plus, minus) = rng.normal(size=(4, 9)), rng.normal(size=4), 10 ** rng.uniform(-6, 1, (2, 9))
    beta = interpolator(x, y, plus, minus)
    np.testing.assert_allclose(x @ beta, y, atol=1e-10 * np.sum(np.abs(beta)))
    exponent = (np.arcsinh(beta / (plus * minus)) - np.log(plus / minus)) / 2
    nu = np.linalg.lstsq(x.T, exponent, rcond=None)[0]
    np.testing.assert_allclose(x.T @ nu, exponent, atol=1e-7)


def descend(batches, rate, scale, num_steps):
    """Steps on u * v from (sqrt(2) alpha, 0): the gradients in beta, and where they lead."""
    u, v, gradients = np.full(8, np.sqrt(2) * scale), np.zeros(8), []
    for step in range(num_steps):
        rows = batches(step)
        gradients.append(WIDE[rows].T @ (WIDE[rows] @ (u * v) - VALUES[rows]) / len(rows))
        u, v = u - rate * gradients[-1] * v, v - rate * gradients[-1] * u
    return np.array(gradients), u * v


@pytest.mark.exact
@pytest.mark.parametrize("rate", [0.01, 0.08])
def test_any_step_limit_is_exact(rate):
    """After a few steps as an identity; after many, from the gains and the labels alone."""
    rows = np.random.default_rng(1).integers(3, size=20_000)

    def one(step):
        return rows[step : step + 1]

    gradients, beta = descend(one, rate, 0.4, 50)
    plus, minus = gains(gradients, rate, 0.4)
    s = -rate * gradients.sum(axis=0)
    np.testing.assert_allclose((plus**2 * np.exp(2 * s) - minus**2 * np.exp(-2 * s)) / 2, beta, atol=1e-12)
    gradients, beta = descend(one, rate, 0.4, 20_000)
    plus, minus = gains(gradients, np.full(20_000, rate), 0.4)
    predicted = interpolator(WIDE, VALUES, plus, minus)
    np.testing.assert_allclose(predicted, beta, atol=1e-9)
    assert np.all(plus < 0.4)
    assert np.max(np.abs(interpolator(WIDE, VALUES, 0.4, 0.4) - beta)) > 1e-4  # gradient flow


@pytest.mark.law
def test_small_step_scale_is_the_mean_gain_of_independent_residuals():
    """Features x and residuals r drawn apart, g = x r: log a = log alpha - gamma^2 sum g^2 / 2 to leading order."""
    rng, rate = np.random.default_rng(2), 1e-3
    features, residuals = rng.normal(size=(5, 3)), rng.normal(size=40_000)
    rows = rng.integers(5, size=residuals.size)
    plus, minus = gains(features[rows] * residuals[:, None], rate, 0.5)
    predicted = small_step_scale(features, rate, rate * np.mean(residuals**2) / 2 * residuals.size, 0.5)
    change = np.log(np.sqrt(plus * minus) / 0.5)
    np.testing.assert_allclose(
        change, np.log(predicted / 0.5), rtol=0.06
    )  # 1 / sqrt(40,000) times a kurtosis of 9 or more
    with pytest.raises(AssertionError):  # the constant of u^2 - v^2
        np.testing.assert_allclose(change, 2 * np.log(predicted / 0.5), rtol=0.06)


@pytest.mark.exact
def test_the_expected_shrinkage_is_the_mean_over_the_examples():
    """All steps there are, by hand; to leading order -2 gamma^2 L times the inputs' mean square where residuals are alike."""
    u, v, rate = RNG.normal(size=8), RNG.normal(size=8), 0.05
    residuals = WIDE @ (u * v) - VALUES
    changes = []
    for x, r in zip(WIDE, residuals, strict=True):
        new_u, new_v = u - rate * r * x * v, v - rate * r * x * u
        changes.append(np.log(np.abs(new_u**2 - new_v**2)) - np.log(np.abs(u**2 - v**2)))
    np.testing.assert_allclose(expected_shrinkage(WIDE, residuals, rate), np.mean(changes, axis=0), rtol=1e-9)
    alike, small = np.full(3, 0.7), 1e-3
    leading = -2 * small**2 * (0.7**2 / 2) * np.mean(WIDE**2, axis=0)
    np.testing.assert_allclose(expected_shrinkage(WIDE, alike, small), leading, rtol=1e-4)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("inputs", "labels", "scale", "message"),
    [
        (INPUTS, LABELS, 0.0, "all must be finite and > 0"),
        (np.vstack([INPUTS, INPUTS]), np.array([1.5, 1.0]), 1.0, "inputs of rank 1 for 2 labels"),
    ],
)
def test_what_cannot_be_solved_is_refused(inputs, labels, scale, message):
    with pytest.raises(bvs.InputError, match=message):
        interpolator(inputs, labels, scale, scale)
