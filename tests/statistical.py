"""Statistical assertions with a declared error rate, in the manner of TensorFlow Probability's ``statistical_testing``.

An assertion fails by chance with probability ``false_alarm``, and says which effect it would see: one of size
``detects`` is caught with probability 1 - ``false_pass`` or better. A test that could not see that much is an error
of the test (`TooWeak`), not a pass.
"""

from typing import Any

import arviz_stats
import numpy as np
import pytest
import scipy.stats
import xarray as xr

FALSE_ALARM = 1e-6
FALSE_PASS = 1e-3


class TooWeak(Exception):
    """The test cannot see the effect it says it sees: give it more draws, or state a larger effect."""


def assert_mean(
    values: Any,
    standard_error: Any = None,
    *,
    expected: Any,
    detects: Any,
    expected_error: Any = 0.0,
    false_alarm: float = FALSE_ALARM,
) -> None:
    """Assert that an expectation is the expected one, within what chance allows.

    Parameters
    ----------
    values
        Without ``standard_error``: independent values along the first axis (one a chain), tested by Student's t. With
        it: an estimate, tested by the normal law.
    standard_error
        That of the estimate.
    expected, expected_error
        The reference and its own standard error.
    detects
        The smallest deviation that is surely seen, in the units of the estimate.
    false_alarm
        Probability of a failure by chance, of all entries together (Bonferroni).
    """
    values = np.asarray(values, float)
    estimate, error, law = values, standard_error, scipy.stats.norm
    if standard_error is None:
        estimate, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
        law = scipy.stats.t(len(values) - 1)
    estimate, expected = np.broadcast_arrays(estimate, np.asarray(expected, float))
    error = np.sqrt(np.asarray(error, float) ** 2 + np.asarray(expected_error, float) ** 2)
    limit = law.isf(false_alarm / max(estimate.size, 1) / 2) * error
    sees = limit + law.isf(FALSE_PASS) * error
    if not np.all(np.isfinite(sees) & (sees <= detects)):
        raise TooWeak(f"sees {sees}, asked for {detects}")
    off = np.abs(estimate - expected)
    if not np.all(off <= limit):
        raise AssertionError(f"mean {estimate} differs from {expected}: off by {off}, chance allows {limit}")


def assert_frequencies(
    counts: Any, probabilities: Any = None, *, detects: float, false_alarm: float = FALSE_ALARM
) -> None:
    """Assert that independent draws fall into categories with the given (by default equal) probabilities.

    By the chi-square test; ``detects`` is the root mean square relative deviation of the probabilities surely seen.
    """
    counts = np.asarray(counts, float)
    number, degrees = counts.sum(), counts.size - 1
    probabilities = np.full(counts.size, 1 / counts.size) if probabilities is None else np.asarray(probabilities)
    if number * probabilities.min() < 100:
        raise TooWeak("the chi-square law at 1e-6 needs 100 draws or more in each category")
    limit = scipy.stats.chi2(degrees).isf(false_alarm)
    if scipy.stats.ncx2(degrees, number * detects**2).cdf(limit) > FALSE_PASS:
        raise TooWeak(f"{number:g} draws do not see a relative deviation of {detects}")
    statistic = np.sum((counts - number * probabilities) ** 2 / (number * probabilities))
    if not statistic <= limit:
        raise AssertionError(f"frequencies {counts / number} differ from {probabilities}: {statistic:g} > {limit:g}")


def planted_bug():
    """The assertion inside must fail, as it does with the bug that was planted."""
    return pytest.raises(AssertionError, match=r"differs? from")


def chain_mean(tree: xr.DataTree, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a recorded observable over all draws, and its Monte Carlo standard error by ArviZ."""
    values = tree["posterior"][name]
    error = arviz_stats.mcse(values.to_dataset(name=name), method="mean")[name]
    return values.mean(("chain", "draw")).values, error.values
