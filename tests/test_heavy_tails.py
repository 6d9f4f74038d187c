"""The tail index of regression, and what stable noise does, by other integrals than those of the theory."""

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory import heavy_tails, stable_noise
from bayes_vs_sgd.theory.quadrature import unit_nodes

# Tail index of regression


@pytest.mark.exact
@pytest.mark.parametrize(
    ("learning_rate", "expected"),
    [(0.3, 5.305901), (0.5, 2.903966), (0.8, 1.546399), (1.0, 1.090826), (1.2, 0.785320), (1.5, 0.477435)],
)
def test_numbers_of_the_notes(learning_rate, expected):
    assert heavy_tails.tail_index(learning_rate) == pytest.approx(expected, abs=6e-7)


@pytest.mark.exact
def test_largest_learning_rate_of_the_notes():
    """In one dimension with one example E log |1 - eta x^2| = 0, here by quadrature over x."""
    rate = heavy_tails.largest_learning_rate()
    assert rate == pytest.approx(2.421250, abs=6e-7)

    def growth(x):
        return 2 * scipy.stats.norm.pdf(x) * np.log(abs(1 - rate * x**2))

    pieces = [(0, rate**-0.5), (rate**-0.5, 3), (3, 12)]
    assert sum(scipy.integrate.quad(growth, *piece)[0] for piece in pieces) == pytest.approx(0, abs=1e-10)


@pytest.mark.exact
@pytest.mark.parametrize(("batch_size", "dimension"), [(1, 1), (2, 1), (5, 1), (1, 2), (4, 3), (3, 10), (2, 200)])
def test_index_two_and_zero_in_closed_form(batch_size, dimension):
    """At 2b/(d + b + 1) the index is 2; just below the largest rate it is near 0, above it there is none."""
    rate = heavy_tails.finite_variance_learning_rate(batch_size, dimension)
    assert heavy_tails.tail_index(rate, batch_size, dimension) == pytest.approx(2, abs=1e-9)
    largest = heavy_tails.largest_learning_rate(batch_size, dimension)
    assert 0 < heavy_tails.tail_index(largest - 1e-4 * (largest - rate), batch_size, dimension) < 1e-3
    with pytest.raises(bvs.InputError, match="has no stationary law: give one between 0 and"):
        heavy_tails.tail_index(1.001 * largest, batch_size, dimension)


@pytest.mark.exact
@pytest.mark.parametrize(("order", "batch_size", "dimension"), [(1.3, 3, 2), (2.7, 3, 4), (0.4, 1, 6), (3.1, 4, 1)])
def test_growth_by_the_hypergeometric_function(order, batch_size, dimension):
    """The mean over beta is 2F1(-s/2, b/2; (b + d - 1)/2; c), c = 1 - (1 - eta tau / b)^2, which leaves one integral."""
    rate, degrees = 0.8, batch_size + dimension - 1

    def integrand(tau):
        c = 1 - (1 - rate / batch_size * tau) ** 2
        mean = scipy.special.hyp2f1(-order / 2, batch_size / 2, degrees / 2, c)
        return scipy.stats.chi2.pdf(tau, degrees) * mean

    middle = batch_size / rate
    pieces = [(0, middle), (middle, 20), (20, 120)]
    found = sum(scipy.integrate.quad(integrand, *piece, epsabs=1e-12, limit=200)[0] for piece in pieces)
    assert heavy_tails.moment_growth(order, rate, batch_size, dimension) == pytest.approx(found, rel=1e-8)


@pytest.mark.law
def test_growth_of_matrices_drawn():
    rate, batch, dimension = 0.9, 3, 4
    x = np.random.default_rng(0).normal(size=(200_000, batch, dimension))
    moved = np.eye(dimension)[1] - rate / batch * np.einsum("nb,nbd->nd", x[:, :, 1], x)
    values = np.linalg.norm(moved, axis=1) ** 1.5
    expected = heavy_tails.moment_growth(1.5, rate, batch, dimension)
    assert_mean(values, expected=expected, detects=0.03)
    with planted_bug():  # the other coordinates do not move
        assert_mean(values, expected=heavy_tails.moment_growth(1.5, rate, batch, 1), detects=0.03)


# Stable noise


@pytest.mark.exact
@pytest.mark.parametrize(("alpha", "expected"), [(1.2, 0.903534), (1.5, 0.842607), (1.8, 0.821178)])
def test_scales_of_the_notes(alpha, expected):
    assert stable_noise.stationary_scale(alpha, step=0.5) == pytest.approx(expected, abs=6e-7)


@pytest.mark.exact
@pytest.mark.parametrize(("alpha", "rate", "step"), [(1.5, 2.0, 0.3), (0.7, 1.0, 1.6), (2.0, 1.0, 0.5)])
def test_scale_is_the_sum_over_all_past_steps(alpha, rate, step):
    """Independent stable terms add in the power alpha; a short step gives the integral."""
    powers = step * np.abs(1 - step * rate) ** (alpha * np.arange(2000))
    assert stable_noise.stationary_scale(alpha, rate, step) == pytest.approx(powers.sum() ** (1 / alpha), rel=1e-12)
    continuous = stable_noise.stationary_scale(alpha, rate)
    assert stable_noise.stationary_scale(alpha, rate, 1e-7) == pytest.approx(continuous, rel=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize(("alpha", "noise", "expected"), [(1.5, 0.05, 224.2), (1.5, 0.025, 634.1)])
def test_exit_times_of_the_notes(alpha, noise, expected):
    assert stable_noise.exit_time(alpha, noise, 1) == pytest.approx(expected, abs=0.05)


@pytest.mark.exact
@pytest.mark.parametrize("alpha", [0.8, 1.5])
def test_exits_are_the_jumps_in_the_tail_of_scipy(alpha):
    """P(|X| > u) of unit noise tends to the rate of jumps beyond u; the next term is of relative order 1/1000 here."""
    far = 1000 ** (1 / alpha)
    probability = 2 * scipy.stats.levy_stable.cdf(-far, alpha, 0)
    assert 1 / stable_noise.exit_time(alpha, 1, far) == pytest.approx(probability, rel=3e-3)


@pytest.mark.exact
@pytest.mark.parametrize(("alpha", "width"), [(0.5, 1.0), (1.2, 2.0), (1.5, 0.7)])
def test_exit_remainder_by_adaptive_quadrature(alpha, width):
    """In the order of its derivation: over jumps y, and over the way back from y at the speed V'."""

    def excess_on_the_way_back(y):
        def rate(x):
            w = x / width
            return (((1 - w) ** -alpha + (1 + w) ** -alpha) / 2 - 1) / (x + x**3)

        return scipy.integrate.quad(rate, 0, y)[0]

    def weighed(share):
        # Jumps in units of those beyond the width, their size such that they are equally frequent.
        return excess_on_the_way_back(width * (1 + share) ** (-1 / alpha))

    found = sum(scipy.integrate.quad(weighed, *piece, limit=200)[0] for piece in [(0, 1), (1, np.inf)])
    remainder = stable_noise.exit_time_remainder(alpha, width, lambda x: x + x**3)
    assert remainder == pytest.approx(found, rel=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda k: np.exp(-(k**2) / 2), -(np.euler_gamma + np.log(2)) / 2),  # standard normal
        (lambda k: np.exp(-k), 0.0),  # Cauchy
        (lambda k: 1 / (1 + k**2), -np.euler_gamma),  # Laplace: |Y| is exponential
    ],
)
def test_mean_log_size(function, expected):
    assert stable_noise.mean_log_size(function) == pytest.approx(expected, abs=1e-9)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heavy_tails.moment_growth(1, -0.1), "learning rate -0.1, batch size 1, dimension 1: give a positive"),
        (lambda: heavy_tails.largest_learning_rate(0, 2), "batch size 0, dimension 2"),
        (lambda: stable_noise.stationary_scale(1.5, 1, 2), "alpha 1.5, rate 1, step 2"),
        (lambda: stable_noise.exit_time(2, 0.1, 1), "alpha is 2: give 0 < alpha < 2"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(bvs.InputError, match=message):
        make()


@pytest.mark.exact
def test_unit_nodes_integrate_singular_ends():
    w, rest, weight = unit_nodes()
    assert np.sum(weight * np.log(w)) == pytest.approx(-1, rel=1e-13)
    assert np.sum(weight * rest**-0.5 * w**-0.25) == pytest.approx(scipy.special.beta(0.75, 0.5), rel=1e-13)
