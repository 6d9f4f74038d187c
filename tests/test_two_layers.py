"""Two-layer networks at the zero map: slopes of the notes, Bessel functions, scale mixtures and exact sampling."""

import numpy as np
import pytest
from statistical import assert_mean, chain_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.evidence import two_layer_log_evidence, two_layer_total_loss
from bayes_vs_sgd.theory.linear_networks import learning_coefficient
from bayes_vs_sgd.theory.normal_crossings import crossing_moments
from bayes_vs_sgd.theory.two_layers import two_layer_moments


@pytest.mark.exact
@pytest.mark.parametrize(
    ("widths", "slope"), [((3, 3, 3), 3.4603), ((2, 3, 2), 1.962), ((2, 2, 2), 1.500), ((3, 5, 4), 5.500)]
)
def test_slopes_of_the_notes(widths, slope):
    """At t = 1e12, near lambda - (m - 1) / log t; the notes took a difference, and 5e-4 is what is left."""
    found = two_layer_moments(widths, 1e12)
    assert found.energy == pytest.approx(slope, abs=5e-4)
    value, multiplicity = learning_coefficient(widths, 0)
    assert found.energy == pytest.approx(value - (multiplicity - 1) / np.log(1e12), abs=5e-3)


@pytest.mark.exact
@pytest.mark.parametrize("precision", [0.1, 10.0, 1e12])
def test_one_weight_a_layer_is_the_product_of_two(precision):
    assert two_layer_moments((1, 1, 1), precision) == pytest.approx(crossing_moments((1, 1), precision), abs=1e-8)


@pytest.mark.exact
@pytest.mark.parametrize(("inputs", "hidden"), [(3, 1), (2, 5), (6, 2)])
def test_one_output_is_the_scale_mixture(inputs, hidden):
    """With inputs sqrt(t) I and labels 0: the evidence less the normal density's constant."""
    precision, constant = 30.0, inputs / 2 * np.log(2 * np.pi)
    data = np.sqrt(precision) * np.eye(inputs), np.zeros(inputs)
    found = two_layer_moments((inputs, hidden, 1), precision)
    assert found.log_evidence == pytest.approx(two_layer_log_evidence(*data, hidden, 1.0, 1.0) + constant, abs=1e-7)
    assert found.energy == pytest.approx(two_layer_total_loss(*data, hidden, 1.0, 1.0) - constant, rel=1e-7)


@pytest.mark.exact
@pytest.mark.parametrize("precision", [0.3, 100.0, 1e9])
def test_either_layer_may_be_integrated_out(precision):
    """Two eigenvalues of a Wishart matrix of 7 degrees and the power 5/2, or of 5 degrees and 7/2."""
    for widths in ((2, 7, 5), (3, 4, 6)):
        swapped = (widths[1], widths[0], widths[2])
        assert two_layer_moments(widths, precision) == pytest.approx(two_layer_moments(swapped, precision), rel=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize("widths", [(3, 3, 3), (2, 5, 3), (4, 4, 4), (3, 400, 5)])
def test_without_data_the_prior_is_normalised_and_the_energy_is_the_slope(widths):
    assert two_layer_moments(widths, 0.0) == pytest.approx((0.0, 0.0), abs=1e-7)
    up, down = (two_layer_moments(widths, 20.0 * factor).log_evidence for factor in (1 + 1e-3, 1 - 1e-3))
    assert two_layer_moments(widths, 20.0).energy == pytest.approx((down - up) / 2e-3, rel=1e-5)
    first = np.prod(np.array(widths, float)) / 2  # K has mean H_0 H_1 H_2 / 2 under the prior
    assert two_layer_moments(widths, 1e-6).energy == pytest.approx(1e-6 * first, rel=1e-3)


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_the_exact_sampler_finds_it(load):
    """n beta (E[L] - L*) of a 3-3-3 network at the zero map; another prior is seen."""
    config = {"widths": (3, 3, 3), "spectrum": (), "noise_free": True, "unseen_inputs": 0, "noise": 1.0}
    model = load("deep_linear", num_examples=1000, **config)
    target = bvs.Posterior(model, 0.3)
    run = bvs.simulate(model.exact_sampler, target, key=1, observables=["loss"], num_chains=32, num_draws=400)
    mean, error = (300 * value for value in chain_mean(run, "loss"))
    assert_mean(mean, error, expected=300 * target.expected_loss(), detects=0.25)
    with planted_bug():
        wrong = bvs.Posterior(load("deep_linear", num_examples=1000, **config, prior_scale=0.5), 0.3)
        assert_mean(mean, error, expected=300 * wrong.expected_loss(), detects=0.25)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("widths", "precision", "message"),
    [((3, 3), 1.0, "three positive widths"), ((3, 3, 3), -1.0, "t >= 0"), ((5, 5, 5), 1.0, "at most 4")],
)
def test_what_cannot_be_is_refused(widths, precision, message):
    with pytest.raises(bvs.InputError, match=message):
        two_layer_moments(widths, precision)
