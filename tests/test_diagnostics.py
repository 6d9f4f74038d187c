"""What says whether a run can be believed."""

import numpy as np
import pytest

from bayes_vs_sgd.diagnostics import bfmi, ess, rhat


@pytest.mark.law
def test_diagnostics_of_independent_and_of_stuck_chains():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(8, 1000))
    assert rhat(good) < 1.01
    assert ess(good) > 5000
    stuck = good + 2 * np.arange(8)[:, None]
    assert rhat(stuck) > 1.5
    assert ess(stuck) < 50


@pytest.mark.exact
def test_a_constant_is_no_reason_to_doubt():
    assert rhat(np.ones((4, 10))) == 1.0
    assert ess(np.ones((4, 10))) == 40


@pytest.mark.law
def test_bfmi_is_two_for_independent_energies_and_small_for_a_slow_walk():
    """Von Neumann's ratio of n independent draws has mean 2 and variance 4/n; five standard deviations."""
    rng = np.random.default_rng(1)
    assert bfmi(rng.normal(size=(4, 2000))) == pytest.approx(2.0, abs=5 * 2 / np.sqrt(2000))
    assert bfmi(np.cumsum(rng.normal(size=(4, 2000)), axis=1)) < 0.05
