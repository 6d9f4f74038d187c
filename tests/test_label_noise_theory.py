"""The laws of label noise against enumeration of the noise, small algebra by hand and Gauss-Hermite quadrature."""

from itertools import product

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory import label_noise as theory

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2))
LOWER, UPPER = RNG.normal(size=(2, 5)), RNG.normal(size=(5, 2))  # predictions X LOWER UPPER


def log_determinant(lower, upper):
    theta = np.hstack([lower.T, upper])
    return np.linalg.slogdet(theta.T @ theta)[1]


def residual(lower, upper, labels):
    return INPUTS.T @ (labels - INPUTS @ lower @ upper)


@pytest.mark.exact
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_determinant_along_a_path(noise):
    """Gradients by hand, of W_1 and W_2 apart; gradient flow's constant would be 0."""
    rng, rate = np.random.default_rng(1), 0.02
    lower, upper, residuals = LOWER, UPPER, []
    for _ in range(100):
        residuals.append(residual(lower, upper, LABELS + noise * rng.normal(size=LABELS.shape)))
        lower, upper = lower + rate * residuals[-1] @ upper.T, upper + rate * lower.T @ residuals[-1]
    change = log_determinant(lower, upper) - log_determinant(LOWER, UPPER)
    assert change < -0.01
    assert theory.log_determinant_change(np.array(residuals), rate) == pytest.approx(change, abs=1e-11)


@pytest.mark.exact
def test_gradient_flow_keeps_the_determinant():
    def flow(t, vector):
        lower, upper = vector[:10].reshape(2, 5), vector[10:].reshape(5, 2)
        moved = residual(lower, upper, LABELS)
        return np.concatenate([(moved @ upper.T).ravel(), (lower.T @ moved).ravel()])

    end = solve_ivp(flow, (0, 3), np.concatenate([LOWER.ravel(), UPPER.ravel()]), rtol=1e-10, atol=1e-12).y[:, -1]
    after = log_determinant(end[:10].reshape(2, 5), end[10:].reshape(5, 2))
    assert after == pytest.approx(log_determinant(LOWER, UPPER), abs=1e-7)


@pytest.mark.exact
def test_determinant_that_vanishes_is_refused():
    with pytest.raises(bvs.InputError, match="1 over a singular value"):
        theory.log_determinant_change(np.array([[[2.0]]]), 0.5)


@pytest.mark.exact
def test_rate_is_the_mean_of_the_change():
    """Over all 64 signs of the noise, which have the moments of order two of normal noise; the next order is eta delta."""
    variance, rate = 3.0, 1e-6
    signs = np.array(list(product([-1, 1], repeat=6))).reshape(-1, 1, 3, 2)
    noises = np.sqrt(variance) * np.einsum("np,stnk->stpk", INPUTS, signs)
    mean = np.mean([theory.log_determinant_change(r, rate) for r in noises]) / rate
    assert theory.log_determinant_rate(INPUTS, 2, rate, variance) == pytest.approx(mean, rel=1e-4)


@pytest.mark.exact
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_corrupted_labels_over_all_batches(batch_size):
    residuals = np.array([0.3, -1.2, 0.7, 2.0])
    counts = np.array([np.bincount(rows, minlength=4) for rows in product(range(4), repeat=batch_size)])
    noises = residuals * (1 - 4 / batch_size * counts)
    np.testing.assert_allclose(noises.mean(axis=0), 0, atol=1e-14)
    covariance = theory.corrupted_label_covariance(residuals, batch_size)
    np.testing.assert_allclose(covariance, noises.T @ noises / len(noises), atol=1e-13)
    if batch_size == 1:
        mean_loss = np.mean(residuals**2) / 2
        assert theory.corrupted_label_energy(mean_loss, 4) == pytest.approx(np.trace(covariance))
        assert theory.corrupted_label_energy(4 * mean_loss, 4, mean_loss=False) == pytest.approx(np.trace(covariance))


@pytest.mark.exact
def test_plateau_covariance_is_that_of_one_examples_gradient():
    features, residuals = RNG.normal(size=(6, 3)), 0.9 * np.array([1, -1, 1, 1, -1, 1])
    gradients = residuals[:, None] * features
    expected = np.cov(gradients.T, bias=True) / 5
    found = theory.plateau_covariance(features, gradients.mean(axis=0), np.mean(residuals**2) / 2, 5)
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.exact
@pytest.mark.parametrize(("convention", "corrector", "power"), [("ito", 0, 0.75), ("stratonovich", 1, 0.375)])
def test_drift_of_the_logarithm(convention, corrector, power):
    """One step of Euler's or Heun's scheme by Gauss-Hermite quadrature: the drift, and the bias that claim G3 tolerates."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    strength, length = 0.8, 1e-3
    x = strength * np.sqrt(length) * nodes
    for sign in (1, -1):  # u + v and u - v
        growth = np.log(1 + sign * x + corrector * x**2 / 2)
        drift = weights @ growth / np.sqrt(2 * np.pi) / length
        bias = (-power if convention == "ito" else power) * strength**4 * length
        assert theory.log_drift(strength, convention) == pytest.approx(drift - bias, abs=20 * length**2)


@pytest.mark.exact
def test_unknown_convention_is_refused():
    with pytest.raises(bvs.InputError, match="must be ito or stratonovich"):
        theory.log_drift(1.0, "anti-ito")


@pytest.mark.exact
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 2), (3, 1), (1, 3)])
def test_balancedness_of_one_noisy_step(inputs, outputs):
    """Mean over all signs of the noise of D' - D, for small steps; the gradient itself drops out."""
    lower, upper = RNG.normal(size=(4, inputs)), RNG.normal(size=(outputs, 4))
    noise, rate, target = 0.7, 1e-7, RNG.normal(size=(outputs, inputs))
    before, changes = upper.T @ upper - lower @ lower.T, []
    for signs in product([-1, 1], repeat=inputs * outputs):
        error = upper @ lower - target + np.sqrt(noise / rate) * np.reshape(signs, (outputs, inputs))
        moved_lower, moved_upper = lower - rate * upper.T @ error, upper - rate * error @ lower.T
        changes.append((moved_upper.T @ moved_upper - moved_lower @ moved_lower.T - before) / rate)
    expected = theory.balancedness_drift(lower, upper, noise)
    np.testing.assert_allclose(np.mean(changes, axis=0), expected, atol=1e-5)
    assert np.max(np.abs(expected)) > 0.1  # gradient flow has none
    if inputs == outputs:
        ahead, behind = (theory.balancedness(before, noise, inputs, t) for t in (1e-5, -1e-5))
        np.testing.assert_allclose((ahead - behind) / 2e-5, expected, atol=1e-8)


@pytest.mark.exact
def test_norm_ratio_stops_the_trace():
    """Layers with |W_1|^2 / |W_2|^2 = d_in / d_out have a balancedness whose trace is at rest."""
    lower, upper = RNG.normal(size=(4, 6)), RNG.normal(size=(2, 4))
    lower *= np.sqrt(theory.stationary_norm_ratio(6, 2) * np.sum(upper**2) / np.sum(lower**2))
    assert np.trace(theory.balancedness_drift(lower, upper, 1.0)) == pytest.approx(0, abs=1e-13)


@pytest.mark.exact
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_drift_of_a_minor_is_the_mean_of_its_change(size):
    """Over Gauss-Hermite nodes of the four entries of the noise, to first order in the time; of all columns -2 c p k."""
    theta, error, noise, time = np.hstack([LOWER.T, UPPER]), np.array([[0.3, -0.5], [0.2, 0.4]]), 0.7, 1e-6
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()

    def log_minor(theta):
        return np.linalg.slogdet(theta[:, :size].T @ theta[:, :size])[1]

    change = 0.0
    for picked in product(range(3), repeat=4):
        block = error * time + np.sqrt(noise * time) * nodes[list(picked)].reshape(2, 2)
        step = np.block([[np.zeros((2, 2)), block], [block.T, np.zeros((2, 2))]])
        change += np.prod(weights[list(picked)]) * (log_minor(theta + theta @ step) - log_minor(theta))
    found = theory.log_minor_drift(theta, 2, size, error, noise)
    assert found == pytest.approx(change / time, rel=1e-4, abs=1e-4)
    if size == 4:
        assert found == pytest.approx(-2 * noise * 4, rel=1e-9)
    else:  # the rate of the determinant, and that without what the other columns bring in
        assert abs(found + 2 * noise * 4) > 0.1
