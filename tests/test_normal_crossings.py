"""Normal crossings: lambda, m, evidence and energy against Bessel functions, tables, plane integrals and the grid's draws."""

import numpy as np
import pytest
from scipy.special import k0e, logsumexp
from scipy.stats import norm
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.normal_crossings import crossing_learning_coefficient, crossing_moments
from bayes_vs_sgd.theory.product import product_moments

TABLE = {  # N E_N[K] of f = w_1 ... w_L, by the number of weights and the true value of f
    (2, 0): ((1e1, 0.2626), (1e2, 0.3388), (1e3, 0.3813), (1e4, 0.4067), (1e6, 0.4347), (1e8, 0.4498), (1e12, 0.4657)),
    (2, 1): ((1e1, 0.6675), (1e2, 0.5124), (1e3, 0.5012), (1e4, 0.5001), (1e6, 0.5), (1e8, 0.5), (1e12, 0.5)),
    (3, 0): ((1e2, 0.2423), (1e4, 0.3296), (1e8, 0.4026), (1e12, 0.4324)),
    (4, 0): ((1e2, 0.1787), (1e4, 0.2678), (1e8, 0.3590), (1e12, 0.4005)),
}


@pytest.mark.exact
@pytest.mark.parametrize(("number", "center"), TABLE)
def test_table_of_the_estimator_at_finite_n(number, center):
    for num_examples, expected in TABLE[number, center]:
        assert crossing_moments((1,) * number, num_examples, center).energy == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.exact
@pytest.mark.parametrize("precision", [1e-3, 1.0, 1e4, 1e12])
def test_two_weights_have_a_bessel_function(precision):
    """Z = exp(1 / 4N) K_0(1 / 4N) / sqrt(2 pi N), and at other centers the quadrature over K_0."""
    log_z = np.log(k0e(1 / (4 * precision)) / np.sqrt(2 * np.pi * precision))
    assert crossing_moments((1, 1), precision).log_evidence == pytest.approx(log_z, abs=1e-8)
    for center, scale in ((0.0, 1.0), (0.3, 0.5), (-2.0, 1.5)):
        found = crossing_moments((1, 1), precision, center, scale).energy
        assert found == pytest.approx(product_moments(precision, center, scale**-2).energy, rel=1e-7)


@pytest.mark.exact
@pytest.mark.parametrize(("precision", "center"), [(0.0, 0.3), (2.0, 0.0), (50.0, -0.4), (1e6, 1.0)])
def test_one_weight_is_a_normal(precision, center):
    """Z = N(s; 0, 1 + 1/b) sqrt(2 pi / b), and the energy of its posterior."""
    spread = 1 + precision
    found = crossing_moments((1,), precision, center)
    assert found.log_evidence == pytest.approx(-precision * center**2 / (2 * spread) - np.log(spread) / 2, abs=1e-8)
    energy = precision / 2 * (1 / spread + (center / spread) ** 2)
    assert found.energy == pytest.approx(energy, rel=1e-8, abs=1e-12)


@pytest.mark.exact
@pytest.mark.parametrize("powers", [(1, 2), (2, 2), (2, 3)])
@pytest.mark.parametrize(("precision", "center", "scale"), [(5.0, 0.0, 1.0), (3.0, 0.8, 0.9), (3.0, -0.8, 1.1)])
def test_powers_by_the_plane(powers, precision, center, scale):
    """The trapezoid rule over both weights converges exponentially on what vanishes at the ends."""
    line = np.linspace(-8, 8, 3201)
    first, second = ((scale * line) ** power for power in powers)
    energy = precision / 2 * (first[:, None] * second - center) ** 2
    logs = norm.logpdf(line)[:, None] + norm.logpdf(line) - energy
    log_z = logsumexp(logs)
    found = crossing_moments(powers, precision, center, scale)
    assert found.log_evidence == pytest.approx(log_z + 2 * np.log(line[1] - line[0]), abs=1e-7)
    assert found.energy == pytest.approx(np.sum(np.exp(logs - log_z) * energy), rel=1e-7)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("powers", "value", "multiplicity"),
    [
        ((1, 1), 1 / 2, 2),
        ((1, 2), 1 / 4, 1),
        ((1, 1, 1), 1 / 2, 3),
        ((2, 3), 1 / 6, 1),
        ((2, 2), 1 / 4, 2),
        ((4,), 1 / 8, 1),
    ],
)
def test_learning_coefficient_is_the_slope(powers, value, multiplicity):
    """N E_N[K] tends to lambda - (m - 1) / log N: it is fitted by a + c / log N where the next terms are 1e-2."""
    assert crossing_learning_coefficient(powers) == (value, multiplicity)
    inverse = 1 / np.log([1e24, 1e30])
    energies = [crossing_moments(powers, precision).energy for precision in (1e24, 1e30)]
    slope = (energies[0] - energies[1]) / (inverse[0] - inverse[1])
    assert energies[1] - slope * inverse[1] == pytest.approx(value, abs=0.01)
    assert -slope == pytest.approx(multiplicity - 1, abs=0.12 * multiplicity)


@pytest.mark.exact
def test_it_is_minus_the_slope_of_the_log_evidence():
    for powers, center in (((1, 1, 1), 0.5), ((2, 3, 1), -0.2)):
        up, down = (crossing_moments(powers, 20.0 * factor, center).log_evidence for factor in (1 + 1e-3, 1 - 1e-3))
        assert crossing_moments(powers, 20.0, center).energy == pytest.approx((down - up) / 2e-3, rel=1e-5)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_the_grid_finds_the_models_expected_loss(load):
    model = load("normal_crossing", num_examples=20, prior_scale=1.2)
    target = bvs.Posterior(model, 0.7)
    run = bvs.simulate(
        bvs.Grid(2**18), target, key=1, num_chains=16, num_draws=1000, observables=["loss"], progress=False
    )
    losses = 14 * run["posterior"]["loss"].to_numpy().ravel()
    assert_mean(losses, expected=14 * target.expected_loss(), detects=0.05)
    with planted_bug():
        wrong = bvs.Posterior(load("normal_crossing", num_examples=20, prior_scale=0.6), 0.7)
        assert_mean(losses, expected=14 * wrong.expected_loss(), detects=0.05)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_without_label_noise_it_is_that_of_the_population(load):
    """N beta (E[L] - L*) is the table's: three weights at N = 100."""
    for name, config in (("normal_crossing", {"powers": (1, 1, 1)}), ("product", {"depth": 3})):
        extra = {"noise_free": True} if name == "normal_crossing" else {}
        target = bvs.Posterior(load(name, num_examples=100, **config, **extra))
        loss = float(target.model.loss(target.model.unconstrain(target.model.optimum)))
        assert 100 * (target.expected_loss() - loss) == pytest.approx(0.2423, abs=1e-4)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"powers": ()}, "whole numbers >= 1"),
        ({"powers": (1, 0)}, "whole numbers >= 1"),
        ({"num_examples": 1}, "at least 2"),
        ({"num_held_out": 1}, "at least 2"),
        ({"noise": 0.0}, "both must be > 0"),
    ],
)
def test_impossible_settings_are_refused(load, config, message):
    with pytest.raises(bvs.InputError, match=message):
        load("normal_crossing", **config)


@pytest.mark.exact
def test_impossible_precisions_are_refused():
    with pytest.raises(bvs.InputError, match="b >= 0 and tau > 0"):
        crossing_moments((1, 1), -1.0)
