"""Estimators of a tail index: right for stable noise, not fooled by correlations or by a power law of finite variance."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.assumptions import tails


def stable(rng, alpha, *shape):
    """Normals times the root of a one-sided stable draw, by Kanter's formula: rotationally symmetric along the last axis."""
    angle, exponential = rng.uniform(0, np.pi, shape[:-1]), rng.exponential(size=shape[:-1])
    a = alpha / 2
    mixing = np.sin(a * angle) / np.sin(angle) ** (1 / a) * (np.sin((1 - a) * angle) / exponential) ** ((1 - a) / a)
    return np.sqrt(mixing)[..., None] * rng.normal(size=shape)


def autoregressive(values):
    return scipy.signal.lfilter([1], [1, -0.9], values, axis=0)[1000:]


SIZE = 50_000
FINITE_VARIANCE = {
    "Gaussian AR(1)": (lambda rng: autoregressive(rng.normal(size=SIZE)), {False}),
    "Laplace": (lambda rng: rng.laplace(size=SIZE), {False}),
    "Student's t3": (lambda rng: rng.standard_t(3, SIZE), {False, None}),
    "AR(1) of Student's t3 vectors": (lambda rng: autoregressive(rng.standard_t(3, (SIZE, 3))), {False, None}),
}
INFINITE_VARIANCE = {
    "stable 1.4": (lambda rng: stable(rng, 1.4, SIZE, 1), {True}),
    "stable 1.4 vectors": (lambda rng: stable(rng, 1.4, SIZE, 5) * [3, 1, 1, 1, 0.1], {True}),
    "stable 1.2": (lambda rng: stable(rng, 1.2, SIZE, 2), {True}),
    "few stable 1.7": (lambda rng: stable(rng, 1.7, 2000, 1), {True, None}),
}
LAWS = FINITE_VARIANCE | INFINITE_VARIANCE


@pytest.mark.law
@pytest.mark.parametrize("name", LAWS)
def test_only_infinite_variance_is_called_heavy(name):
    """The calls that are allowed: the ends of the intervals that decide are four standard errors or more from 2."""
    draw, calls = LAWS[name]
    samples = draw(np.random.default_rng(0))
    for independent in (False,) if "AR(1)" in name else (False, True):
        found = tails.tail_index(samples, independent=independent)
        assert found.heavy in calls
        if name in FINITE_VARIANCE:  # the block estimate alone, without a null, sees infinite variance
            assert found.blocks.interval[1] < 2


@pytest.mark.law
def test_block_estimates_of_stable_vectors():
    rng = np.random.default_rng(1)
    samples = stable(rng, 1.3, 400, 1000, 3)
    estimates = [tails.blocks(sample, 50) for sample in samples]
    assert_mean([inverse for inverse, _ in estimates], expected=1 / 1.3, detects=0.03)
    with planted_bug():  # normals of the same entries
        assert_mean([inverse for inverse, _ in estimates], expected=0.5, detects=0.03)
    values, errors = np.transpose(estimates)
    assert np.mean(errors**2) ** 0.5 == pytest.approx(values.std(), rel=0.2)  # a ratio of variances: 5 s.e. are 18 %


@pytest.mark.law
def test_hill_of_pareto_norms():
    """Beyond 1 the tail is exactly a power: the estimate of 1/alpha is a mean of exponentials."""
    norms = np.random.default_rng(2).pareto(1.7, size=(400, 2000)) + 1
    estimates = [tails.hill(sample[:, None], 100) for sample in norms]
    values, errors = np.transpose(estimates)
    assert_mean(values, expected=1 / 1.7, detects=0.03)
    assert np.mean(errors**2) ** 0.5 == pytest.approx(0.1 / 1.7, rel=0.1)
    with planted_bug():
        assert_mean(1 / values, expected=1 / 1.7, detects=0.1)


@pytest.mark.exact
def test_noise_of_few_values_has_no_tail():
    """Batches of one example repeat each gradient: the largest norms are all one number, and Hill's ratio was 0/0."""
    rng = np.random.default_rng(0)
    found = bvs.tail_index(rng.normal(size=(8, 2))[rng.integers(8, size=16_000)], independent=True)
    assert found.hill.value == found.extreme.value == np.inf
    assert found.hill.interval == (np.inf, np.inf)
    assert found.heavy is False


@pytest.mark.law
def test_sums_of_signs_may_vanish():
    """The mean of log|sum of 100 signs| less log 1 is that of a normal law but for the lattice, whose zeros count as 2."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(40_000, 1))
    found = tails.tail_index(signs)
    assert found.heavy is False
    k = np.arange(0, 101)
    exact = scipy.stats.binom(100, 0.5).pmf(k) @ np.log(np.maximum(np.abs(2 * k - 100), 2)) / np.log(100)
    assert_mean(
        1 / found.blocks.value, found.blocks.standard_error / found.blocks.value**2, expected=exact, detects=0.1
    )


@pytest.mark.exact
def test_surrogates_keep_correlations_and_drop_the_tail():
    rng = np.random.default_rng(3)
    samples = autoregressive(stable(rng, 1.2, 5000, 3)) @ rng.normal(size=(3, 3)) + 1.0

    def cross_spectra(x):
        f = np.fft.rfft(x, axis=0)
        return f[:, :, None] * f[:, None].conj()

    drawn = tails._phase_randomized(samples)(rng)
    expected = cross_spectra(samples)
    np.testing.assert_allclose(cross_spectra(drawn), expected, atol=1e-9 * np.abs(expected).max())
    kurtosis = scipy.stats.kurtosis(tails._independent(samples)(rng)), scipy.stats.kurtosis(samples)
    assert np.all(np.abs(kurtosis[0]) < 0.5)  # 6 standard errors
    assert np.all(kurtosis[1] > 10)


@pytest.mark.law
def test_independent_surrogates_have_the_covariance():
    rng = np.random.default_rng(4)
    samples = rng.exponential(size=(1000, 2)) @ [[1, 0.5], [0, 2]]
    draw = tails._independent(samples)
    drawn = np.concatenate([draw(rng) for _ in range(100)]) - samples.mean(axis=0)
    products = drawn[:, [0, 0, 1]] * drawn[:, [0, 1, 1]]
    covariance = np.cov(samples.T, bias=True)
    assert_mean(products, expected=covariance[[0, 0, 1], [0, 1, 1]], detects=0.25)
    with planted_bug():  # entries drawn independently
        assert_mean(products, expected=np.diag(np.diag(covariance))[[0, 0, 1], [0, 1, 1]], detects=0.25)


@pytest.mark.exact
def test_scale_and_rotation_do_not_matter():
    rng = np.random.default_rng(5)
    samples = stable(rng, 1.5, 1000, 2)
    rotation = scipy.stats.special_ortho_group(2, seed=0).rvs()
    first, second = tails.tail_index(samples), tails.tail_index(100 * samples @ rotation)
    for tail, other in ((first.hill, second.hill), (first.extreme, second.extreme), (first.blocks, second.blocks)):
        np.testing.assert_allclose(
            (tail.value, *tail.interval, *tail.null), (other.value, *other.interval, *other.null)
        )


@pytest.mark.exact
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tails.tail_index(np.ones(399)), "399 samples of noise: a tail index needs at least 400"),
        (lambda: tails.tail_index(np.zeros((400, 2))), "not finite or exactly zero"),
        (lambda: tails.tail_index(np.ones(400), num_upper=400), "num_upper 400, block_size 20"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(bvs.InputError, match=message):
        make()
