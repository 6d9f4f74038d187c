"""The Mittag-Leffler function by its series, special cases and Laplace transform, and moments on the inverse stable clock."""

import numpy as np
import pytest
import scipy.integrate
import scipy.special

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory import fractional

X = np.array([0, 1e-6, 0.01, 0.3, 1, 3, 30, 1e4, 1e12])


@pytest.mark.exact
@pytest.mark.parametrize(
    ("alpha", "x", "expected"),
    [(0.5, 1, 0.427583576), (0.6, 1, 0.413327), (0.8, 1, 0.386949), (0.6, 2, 0.235571), (0.8, 2, 0.189797)],
)
def test_numbers_of_the_notes(alpha, x, expected):
    assert fractional.mittag_leffler(x, alpha).item() == pytest.approx(
        expected, abs=6e-7 if expected != 0.427583576 else 6e-10
    )


@pytest.mark.exact
def test_one_half_and_one():
    """exp(x^2) erfc(x), and the exponential."""
    np.testing.assert_allclose(fractional.mittag_leffler(X, 0.5), scipy.special.erfcx(X), rtol=1e-13)
    np.testing.assert_allclose(fractional.mittag_leffler(X[:7], 1.0), np.exp(-X[:7]), rtol=1e-13)


@pytest.mark.exact
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.4, 0.7, 0.9, 0.99, 0.99999])
def test_series_and_tail(alpha):
    """The series where it converges fast, and the first two terms for large x."""
    x, n = np.array([0.05, 0.4, 0.7]), np.arange(200)
    series = np.sum((-x[:, None]) ** n * scipy.special.rgamma(1 + alpha * n), axis=1)
    np.testing.assert_allclose(fractional.mittag_leffler(x, alpha), series, rtol=1e-12)
    x = np.array([1e6, 1e9])
    tail = scipy.special.rgamma(1 - alpha) / x - scipy.special.rgamma(1 - 2 * alpha) / x**2
    # At small alpha the transition is as wide as 4001 nodes can bear.
    np.testing.assert_allclose(fractional.mittag_leffler(x, alpha), tail, rtol=1e-9 if alpha > 0.05 else 1e-3)


@pytest.mark.exact
@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_laplace_transform(alpha):
    """The transform of E_alpha(-lambda t^alpha) is u^(alpha - 1) / (lambda + u^alpha)."""
    rate, u = 1.3, 0.6

    def integrand(log_t):
        t = np.exp(log_t)
        return t * np.exp(-u * t) * fractional.mean_position(1, rate, t, alpha).item()

    found = scipy.integrate.quad(integrand, -30, 5, limit=200)[0]
    assert found == pytest.approx(u ** (alpha - 1) / (rate + u**alpha), rel=1e-8)


@pytest.mark.exact
def test_moments_of_the_notes():
    times = np.array([1, 10])
    np.testing.assert_allclose(fractional.mean_position(2, 1, times, 0.7), [0.79922, 0.15473], atol=6e-6)
    np.testing.assert_allclose(fractional.second_moment(2, 1, 0.5, times, 0.7), [1.24825, 0.62628], atol=6e-6)


@pytest.mark.exact
def test_free_displacement_is_the_limit_of_a_flat_well():
    rate, times = 1e-7, np.array([0.5, 2.0])
    flat = fractional.second_moment(0, rate, 0.8, times, 0.6)
    np.testing.assert_allclose(fractional.free_displacement(0.8, times, 0.6), flat, rtol=1e-6)
    np.testing.assert_allclose(fractional.free_displacement(0.8, times, 1), 2 * 0.8 * times, rtol=1e-14)


@pytest.mark.exact
@pytest.mark.parametrize(("x", "alpha"), [(-0.1, 0.5), (1.0, 0.0), (1.0, 1.1)])
def test_impossible_arguments_are_refused(x, alpha):
    with pytest.raises(bvs.InputError, match="give x >= 0 and 0 < alpha <= 1"):
        fractional.mittag_leffler(x, alpha)
