"""Distances between laws beside their exact values."""

import numpy as np
import pytest
import scipy.stats
from statistical import assert_mean, planted_bug
from test_effects import autoregressive

from bayes_vs_sgd.comparison.distances import total_variation, wasserstein
from bayes_vs_sgd.comparison.effects import Sample

pytestmark = pytest.mark.law


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_wasserstein_of_a_shift_is_the_shift(shift):
    """In sd of the reference, which is 3 here; the bug is to forget that."""
    rng = np.random.default_rng(0)
    reference = Sample(3 * autoregressive(rng, 0.5, (16, 500)), False)
    sample = Sample(3 * (rng.normal(size=(2000, 1)) + shift), True)
    found = wasserstein("x", sample, reference)
    assert_mean(found.value, found.standard_error, expected=shift, detects=0.35)
    with planted_bug():
        assert_mean(3 * found.value, found.standard_error, expected=shift, detects=0.35)


def test_total_variation_of_normal_laws_is_reached_by_the_classifier():
    """Of N(0, I) and a shift by delta along one axis: 2 Phi(delta / 2) - 1, where the fitted laws are the true ones."""
    rng, delta = np.random.default_rng(1), 1.0
    reference = np.stack([autoregressive(rng, 0.5, (16, 500)) for _ in range(3)], axis=-1)
    sample = rng.normal(size=(2000, 1, 3)) + delta * np.eye(3)[0]
    found = total_variation(sample, reference, True)
    exact = 2 * scipy.stats.norm.cdf(delta / 2) - 1
    assert_mean(found.value, found.standard_error, expected=exact, detects=0.12)
    assert found.lower_bound < exact
    with planted_bug():  # the accuracy in the place of twice it less one
        assert_mean((1 + found.value) / 2, found.standard_error, expected=exact, detects=0.12)


def test_identical_laws_have_a_lower_bound_of_zero_but_for_chance():
    """The bound of a total variation of 0 is above 0 in 5 % of the cases."""
    rng, above = np.random.default_rng(2), 0
    for _ in range(200):
        reference = autoregressive(rng, 0.5, (16, 50))[..., None]
        above += total_variation(rng.normal(size=(400, 1, 1)), reference, True).lower_bound > 0
    assert above <= scipy.stats.binom.isf(1e-6, 200, 0.05)
