"""The statistical assertions have the error rates they declare."""

import numpy as np
import pytest
import scipy.stats
from statistical import TooWeak, assert_frequencies, assert_mean, planted_bug


def failures(assertion, num_tries=2000):
    """How many of many tries fail, each given its own generator."""
    count = 0
    for seed in range(num_tries):
        try:
            assertion(np.random.default_rng(seed))
        except AssertionError:
            count += 1
    return count


def assert_rate(count, rate, num_tries=2000):
    """The number of failures is one that the declared rate makes likely (two-sided, 1e-6 in all)."""
    low, high = scipy.stats.binom(num_tries, rate).interval(1 - 1e-6)
    assert low <= count <= high, f"{count} of {num_tries} failed, the declared rate is {rate}"


@pytest.mark.law
@pytest.mark.parametrize("shape", [(8,), (8, 5)], ids=["one", "five"])
def test_false_alarms_of_a_mean_of_few_values(shape):
    """Student's t is exact for normal values, however few; several entries share the rate."""

    def assertion(rng):
        assert_mean(3 + rng.normal(size=shape), expected=3.0, detects=1e3, false_alarm=0.02)

    assert_rate(failures(assertion), 0.02)


@pytest.mark.law
def test_false_alarms_with_a_reference_that_has_an_error():
    def assertion(rng):
        settings = {"expected": 0.5 * rng.normal(), "expected_error": 0.5, "detects": 10.0, "false_alarm": 0.02}
        assert_mean(rng.normal(), 1.0, **settings)

    assert_rate(failures(assertion), 0.02)


@pytest.mark.law
def test_an_effect_of_the_stated_size_is_seen():
    """At the very size it states it fails at most one time in a thousand to see it."""
    detects = (scipy.stats.norm.isf(0.5e-6) + scipy.stats.norm.isf(1e-3)) * 1.0001
    missed = 2000 - failures(lambda rng: assert_mean(detects + rng.normal(), 1.0, expected=0.0, detects=detects))
    assert missed <= scipy.stats.binom(2000, 1e-3).isf(1e-6)


@pytest.mark.law
def test_false_alarms_of_frequencies():
    def assertion(rng):
        assert_frequencies(rng.multinomial(2000, [0.2] * 5), detects=1.0, false_alarm=0.02)

    assert_rate(failures(assertion), 0.02)


@pytest.mark.exact
def test_a_weak_test_is_an_error_and_no_planted_bug():
    with pytest.raises(TooWeak, match="asked for"):
        assert_mean([0, 1, 2], expected=50.0, detects=1e-3)
    with pytest.raises(TooWeak), planted_bug():
        assert_frequencies([60, 40], detects=0.9)
    with pytest.raises(TooWeak):
        assert_mean(np.nan, 1.0, expected=0.0, detects=np.nan)
    with planted_bug():
        assert_mean(np.nan, 1.0, expected=0.0, detects=10.0)
