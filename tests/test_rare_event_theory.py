"""Exact rare events of linear networks: every number of the table, and each formula by a second route."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import dblquad, quad
from scipy.special import beta, erfc, gamma, k0
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.evidence import two_layer_log_evidence
from bayes_vs_sgd.theory.noisy_events import network_exceedance, regression_exceedance
from bayes_vs_sgd.theory.rare_events import (
    fitted_exceedance,
    fitted_influence,
    flow_exceedance,
    product_exceedance,
    reweighted_exceedance,
    sublevel_exceedance,
    sublevel_mass,
)

pytestmark = pytest.mark.exact


def digits(text):
    """A printed number, within half a unit of its last digit."""
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2])
    return pytest.approx(float(text), rel=0, abs=0.5001 * 10.0 ** (int(exponent or 0) - places))


ONE = np.sqrt(50.0) * np.array([[1.0, 0.0]]), np.array([np.sqrt(50.0)])
"""One row that stands for data with sum x^2 = 50 and estimate 1; the second input is never seen."""


@pytest.mark.parametrize(
    ("threshold", "depth", "printed"),
    [
        (1, 1, ".3173105"),
        (3, 1, ".002699796"),
        (4.891638, 1, "1.0000e-6"),
        (1, 2, ".208993663"),
        (3, 2, ".0196385974"),
        (12.289025, 2, "1.00000e-6"),
        (1, 3, ".146616155"),
        (3, 3, ".0231361652"),
        (24.37150, 3, "1.00000e-6"),
    ],
)
def test_product_of_weights(threshold, depth, printed):
    assert product_exceedance(threshold, depth) == digits(printed)


def test_product_of_two_is_the_tail_of_bessels_density():
    for threshold in (0.1, 1.0, 12.289025):
        tail = 2 / np.pi * quad(k0, threshold, np.inf, epsabs=0, epsrel=1e-12)[0]
        assert product_exceedance(threshold, 2) == pytest.approx(tail, rel=1e-10)
    assert product_exceedance(3 * 0.5**2, 2, 0.5) == pytest.approx(product_exceedance(3, 2), rel=1e-12)


@pytest.mark.parametrize(
    ("threshold", "printed"), [(1, ".346043443"), (2, ".033778779"), (3, "5.98643528e-4"), (4.073119, "1.00000e-6")]
)
def test_direction_between_what_is_seen_and_what_is_not(threshold, printed):
    direction = np.ones(2) / np.sqrt(2)
    assert regression_exceedance(threshold, *ONE, 0.5, 1.0, direction) == digits(printed)


@pytest.mark.parametrize(
    ("hidden", "threshold", "printed"),
    [
        (4, 1, ".529880353"),
        (4, 3, ".104465134"),
        (4, 15.283780, "1.00000e-6"),
        (1, 1, ".321945513"),
        (1, 3, ".0261652120"),
        (1, 12.073605, "1.00000e-6"),
        (16, 1, ".786541335"),
        (16, 3, ".421802416"),
        (16, 23.607701, "1.00000e-6"),
    ],
)
def test_fitted_network(hidden, threshold, printed):
    assert fitted_exceedance(threshold, hidden) == digits(printed)


def test_fitted_network_is_generalised_hyperbolic():
    """By SciPy's law with a = alpha delta = s / tau^2, b = 0, scale delta = s; another rank, norm and prior."""
    for hidden, rank, norm, tau in ((4, 1, 1.0, 1.0), (3, 2, 0.7, 1.3), (5, 3, 2.0, 0.8)):
        law = stats.genhyperbolic((hidden - rank) / 2, norm / tau**2, 0.0, scale=norm)
        assert fitted_exceedance(1.5, hidden, rank, norm, tau) == pytest.approx(2 * law.sf(1.5), rel=1e-7)


def test_noisy_network():
    """Noise variance sigma^2 / (n beta) = .0025; without noise it is the fitted one."""
    x, y = np.array([[1.0, 0.0]]), np.ones(1)
    direction = np.array([0.0, 1.0])
    for threshold, printed in ((1, ".529787003"), (3, ".104444714")):
        assert network_exceedance(threshold, x, y, 4, 0.05, 1.0, direction) == digits(printed)
        assert network_exceedance(threshold, x, y, 4, 0.5, 1.0, direction, beta=100.0) == digits(printed)
        close = network_exceedance(threshold, x, y, 4, 1e-4, 1.0, direction)
        assert close == pytest.approx(fitted_exceedance(threshold, 4), rel=1e-7)


def test_network_on_fifty_examples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1.0, 1.0, 0.0]
    y = x @ [1.0, -0.5, 0.0] + 0.5 * rng.normal(size=50)
    assert two_layer_log_evidence(x, y, 4, 0.5, 1.0) == digits("-39.644004")
    for threshold, printed in ((1, ".491742"), (3, ".080782"), (6, ".0043774"), (14.44516, "1.0000e-6")):
        assert network_exceedance(threshold, x, y, 4, 0.5, 1.0, np.eye(3)[2]) == digits(printed)


@pytest.mark.parametrize(
    ("tolerance", "mass", "beyond"),
    [(0.1, ".0367879", {1: ".529756", 3: ".104438", 9: "4.17691e-4"}), (0.5, ".183843", {1: ".526943", 3: ".103840"})],
)
def test_sublevel_set(tolerance, mass, beyond):
    assert sublevel_mass(tolerance, 4) == digits(mass)
    for threshold, printed in beyond.items():
        assert sublevel_exceedance(threshold, tolerance, 4) == digits(printed)


def test_sublevel_set_of_another_prior():
    """Weights of scale tau are tau times standard ones, so that outputs are tau^2 times theirs."""
    assert sublevel_mass(0.2, 3, 1.0, 0.5) == pytest.approx(sublevel_mass(0.8, 3, 4.0), rel=1e-10)
    assert sublevel_exceedance(2, 0.2, 3, 1.0, 0.5) == pytest.approx(sublevel_exceedance(8, 0.8, 3, 4.0), rel=1e-10)


@pytest.mark.parametrize(
    ("scale", "threshold", "flow", "posterior"),
    [
        (1.0, 1, ".539", ".5299"),
        (1.0, 3, ".1127", ".1045"),
        (0.5, 1, ".0871", ".1052"),
        (0.5, 3, "5.26e-5", "1.11e-4"),
        (0.1, 1, "2.7e-23", "1.4e-19"),
    ],
)
def test_gradient_flow(scale, threshold, flow, posterior):
    assert flow_exceedance(threshold, 4, 1.0, scale) == digits(flow)
    assert fitted_exceedance(threshold, 4, prior_scale=scale) == digits(posterior)


@pytest.mark.parametrize(("hidden", "scale", "threshold"), [(2, 1.0, 1.0), (4, 0.5, 3.0), (4, 0.1, 1.0)])
def test_gradient_flow_by_a_second_quadrature(hidden, scale, threshold):
    """Adaptive, over y and the angle itself, whose density is proportional to its sine to the power h - 2."""

    def integrand(angle, y):
        g = scale**2 * y
        r = np.hypot(1, g) + g * np.cos(angle)
        beyond = erfc(threshold / (scale * np.sqrt(2 * r)))
        return y ** (hidden - 1) * k0(y) * np.sin(angle) ** (hidden - 2) * beyond

    constant = 2.0 ** (hidden - 2) * gamma(hidden / 2) ** 2 * beta((hidden - 1) / 2, 0.5)
    parts = [dblquad(integrand, *ends, 0, np.pi, epsabs=0, epsrel=1e-7)[0] for ends in ((0, 20), (20, 80))]
    assert flow_exceedance(threshold, hidden, 1.0, scale) == pytest.approx(sum(parts) / constant, rel=1e-6)


@pytest.mark.law
def test_gradient_flow_integrated():
    """By the flow itself, from 4,000 starts; that their law is the posterior is the planted bug."""
    rng = np.random.default_rng(0)
    v, w = 0.5 * rng.normal(size=(2, 4000, 4))
    for _ in range(4000):
        error = np.sum(v * w, axis=1, keepdims=True) - 1
        v, w = v - 5e-3 * error * w, w - 5e-3 * error * v
    assert np.abs(np.sum(v * w, axis=1) - 1).max() < 1e-6
    beyond = 2 * stats.norm.sf(0.5 / (0.5 * np.linalg.norm(v, axis=1)))
    assert_mean(beyond, expected=flow_exceedance(0.5, 4, 1.0, 0.5), detects=0.02)
    with planted_bug():
        assert_mean(beyond, expected=fitted_exceedance(0.5, 4, prior_scale=0.5), detects=0.02)


def test_influence_of_an_example_at_the_trigger():
    assert fitted_influence(3, 4, 0.5) == digits("-3.067331")
    for weight, printed in ((0, ".104465134"), (0.01, ".0790176"), (0.1, ".00992295"), (1, "3.46572e-10")):
        assert reweighted_exceedance(3, 4, 0.5, weight) == digits(printed)
    step = 1e-5
    above, here = (reweighted_exceedance(3, 4, 0.5, e) for e in (step, 0))
    further = reweighted_exceedance(3, 4, 0.5, 2 * step)
    assert (-further + 4 * above - 3 * here) / (2 * step) == pytest.approx(fitted_influence(3, 4, 0.5), rel=1e-5)


def test_products_of_many_weights_are_refused():
    with pytest.raises(bvs.InputError, match="depth is 4"):
        product_exceedance(1.0, 4)
