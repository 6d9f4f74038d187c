"""Our distances and tests beside those of POT and hyppo, which take draws for independent: on draws thinned until they are."""

import numpy as np
import ot
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from statistical import planted_bug
from test_effects import autoregressive

from bayes_vs_sgd.comparison import global_tests
from bayes_vs_sgd.comparison.distances import wasserstein
from bayes_vs_sgd.comparison.effects import Sample

pytestmark = pytest.mark.law
PHI, THIN = 0.9, 40
"""Draws so far apart are correlated by .9^40 = .015."""
PERMUTATIONS = 1000


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_wasserstein_is_that_of_optimal_transport(shift):
    """Exact transport of the same draws, to rounding."""
    rng = np.random.default_rng(0)
    chains, ours = autoregressive(rng, PHI, (16, 50 * THIN))[:, ::THIN], rng.normal(size=(2000, 1)) ** 3 + shift
    found = wasserstein("x", Sample(ours, True), Sample(chains, False))
    unit = chains.std()

    def assert_near(order):
        transport = ot.wasserstein_1d(ours.ravel(), chains.ravel(), p=order) ** (1 / order) / unit
        assert found.value == pytest.approx(transport, rel=1e-9), f"{found.value} differs from {transport}"

    assert_near(1)
    with planted_bug():
        assert_near(2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_p_values_of_mmd_are_those_of_permutations(monkeypatch):
    """One kernel, eight data sets: differences as large as 999 signs and 1,000 permutations make them, at a level of 1e-4."""
    monkeypatch.setattr(global_tests, "BANDWIDTHS", (1.0,))
    rng, ours, dependent, theirs = np.random.default_rng(1), [], [], []
    for index in range(8):
        chains = np.stack([autoregressive(rng, PHI, (16, 5 * THIN)) for _ in range(2)], axis=-1)
        thinned = chains[:, ::THIN].reshape(-1, 2)
        sample = rng.normal(loc=[0.05 * index, 0], size=(80, 2))
        ours.append(global_tests.mmd(sample[:, None], thinned[:, None], rng).p)
        dependent.append(global_tests.mmd(sample[:, None], chains.reshape(-1, 1, 2), rng).p)
        theirs.append(permuted(sample, thinned))
    assert_alike(ours, theirs)
    with planted_bug():  # draws that depend on each other, taken for independent
        assert_alike(dependent, theirs)


def permuted(sample, thinned) -> float:
    """p-value of hyppo's test with the kernel exp(-|x - y|^2 / median), of observables scaled by their pooled sd."""
    from hyppo.ksample import MMD  # warns of its own imports

    pooled = np.concatenate([sample, thinned])
    points = (pooled - pooled.mean(axis=0)) / pooled.std(axis=0)
    test = MMD(compute_kernel="rbf", bias=True, gamma=1 / np.median(pdist(points, "sqeuclidean")))
    parts = points[: len(sample)], points[len(sample) :]
    return test.test(*parts, reps=PERMUTATIONS, auto=False, random_state=0)[1]


def assert_alike(first, second):
    """Two Monte Carlo estimates of each p-value: their squared differences over their variances are chi-square."""
    first, second = np.array(first), np.array(second)
    middle = (first + second) / 2
    squares = (first - second) ** 2 / (2 * middle * (1 - middle) / PERMUTATIONS)
    assert squares.sum() < stats.chi2.isf(1e-4, len(first)), f"{first} differs from {second}"
