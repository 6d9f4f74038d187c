"""Stable draws have the stable characteristic function and SciPy's distribution function, also in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from statistical import assert_frequencies, assert_mean, planted_bug

from bayes_vs_sgd import stable

NUM_DRAWS = 200_000
WAVES = np.array([0.3, 1.0, 3.0])


@pytest.fixture(scope="module")
def draws():
    """Compile each kind of draw once, its index traced."""
    symmetric = jax.jit(lambda alpha: stable.symmetric_stable(jax.random.key(1), alpha, (NUM_DRAWS,)))
    one_sided = jax.jit(lambda alpha: stable.one_sided_stable(jax.random.key(2), alpha, (NUM_DRAWS,)))
    isotropic = jax.jit(lambda alpha: stable.isotropic_stable(jax.random.key(3), alpha, (NUM_DRAWS, 2)))
    laws = {"symmetric": symmetric, "one-sided": one_sided, "isotropic": isotropic}
    return lambda kind, alpha: np.asarray(laws[kind](alpha), float)


def symmetric_function(k, alpha):
    return np.exp(-(np.abs(k) ** alpha) / 2 ** (alpha / 2))


@pytest.mark.law
@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0, 1.5, 1.95, 2.0])
def test_characteristic_function(draws, alpha):
    values = np.cos(WAVES * draws("symmetric", alpha)[:, None])
    assert_mean(values, expected=symmetric_function(WAVES, alpha), detects=0.015)
    with planted_bug():  # the scale of exp(-|k|^alpha)
        assert_mean(values, expected=np.exp(-(WAVES**alpha)), detects=0.015)


@pytest.mark.law
@pytest.mark.parametrize("alpha", [0.3, 0.7, 0.95])
def test_laplace_transform(draws, alpha):
    values = np.exp(-WAVES * draws("one-sided", alpha)[:, None])
    assert_mean(values, expected=np.exp(-(WAVES**alpha)), detects=0.015)
    with planted_bug():  # the scale of SciPy's stable law with beta = 1
        assert_mean(values, expected=np.exp(-(WAVES**alpha) / np.cos(np.pi * alpha / 2)), detects=0.015)


@pytest.mark.law
@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5])
def test_symmetric_frequencies_by_scipy(draws, alpha):
    law = scipy.stats.levy_stable(alpha, 0, scale=2**-0.5)
    edges = np.concatenate([[-np.inf], law.ppf([0.01]), np.linspace(-2, 2, 7), law.ppf([0.99]), [np.inf]])
    counts = np.histogram(draws("symmetric", alpha), edges)[0]
    assert_frequencies(counts, np.diff(law.cdf(edges)), detects=0.03)


@pytest.mark.law
@pytest.mark.parametrize("alpha", [0.5, 0.7])
def test_one_sided_frequencies_by_scipy(draws, alpha):
    law = scipy.stats.levy_stable(alpha, 1, scale=np.cos(np.pi * alpha / 2) ** (1 / alpha))
    edges = np.array([0, 0.2, 0.4, 0.6, 1, 2, 5, 20, np.inf])
    counts = np.histogram(draws("one-sided", alpha), edges)[0]
    probabilities = np.diff(np.concatenate([[0], law.cdf(edges[1:-1]), [1]]))
    assert_frequencies(counts, probabilities, detects=0.03)


@pytest.mark.law
@pytest.mark.parametrize("alpha", [0.9, 1.5])
def test_vectors_are_rotationally_symmetric(draws, alpha):
    vectors = draws("isotropic", alpha)
    angles = np.array([0.0, 0.4, np.pi / 4, np.pi / 2])
    directions = np.stack([np.cos(angles), np.sin(angles)])
    values = np.cos(1.5 * vectors @ directions)
    assert_mean(values, expected=symmetric_function(1.5, alpha), detects=0.015)
    with planted_bug():  # independent entries
        independent = np.prod(symmetric_function(1.5 * directions, alpha), axis=0)
        assert_mean(values, expected=independent, detects=0.015)


@pytest.mark.exact
def test_the_ends_of_the_range(draws):
    """One-sided draws of index 1 are 1; vectors of index 2 are the normals they are made of."""
    np.testing.assert_array_equal(draws("one-sided", 1.0), 1)
    key_direction = jax.random.split(jax.random.key(3))[1]
    np.testing.assert_array_equal(draws("isotropic", 2.0), jax.random.normal(key_direction, (NUM_DRAWS, 2)))


@pytest.mark.exact
@pytest.mark.parametrize("words", [(0, 0), (0, 2**32 - 1), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1), (1, 0)])
def test_extreme_words_give_finite_draws(monkeypatch, words):
    """All bits 0 or 1, in the angle and in the exponential, at every kind of index."""
    for law, indices in [
        (stable.symmetric_stable, (0.05, 0.5, 0.999999, 1.0, 1.000001, 1.5, 1.999999, 2.0)),
        (stable.one_sided_stable, (0.05, 0.5, 0.999999, 1.0)),
    ]:
        for alpha in indices:
            left = list(words)
            monkeypatch.setattr(jax.random, "bits", lambda *_, left=left: jnp.uint32(left.pop(0)))
            drawn = law(jax.random.key(0), jnp.float32(alpha))
            assert drawn.dtype == jnp.float32
            assert np.isfinite(drawn)
